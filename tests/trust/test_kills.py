"""SIGKILL at random instants of every phase; benchmarks/reliability.py does the same 50 times."""

import pytest

from kills import kill_chains


@pytest.mark.slow
def test_killed_again_and_again_a_run_comes_out_the_same(tmp_path):
    report = kill_chains(tmp_path, kills=10, per_chain=5, seed=0)
    assert report.kills.total() == 10
    assert report.different == []
    assert len(report.kills) >= 4  # different phases

"""SIGKILL of a reward server under load; benchmarks/serve_rewards.py does the same 20 times."""

import pytest

from reward_server_kills import kill_under_load


@pytest.mark.slow
def test_killed_under_load_nothing_is_lost_doubled_or_chosen_differently(tmp_path):
    report = kill_under_load(tmp_path, kills=3, prompts=60, samples=4, clients=8, seed=0)
    assert report.kills == 3
    assert report.wrong == report.split == []
    assert report.rows == 240
    assert report.learned == report.groups == 60

"""Nothing but the records grows with the number of batches; benchmarks/reliability.py does 5,000."""

import pytest

from soak import soak


@pytest.mark.slow
def test_a_long_run_holds_no_more_files_and_threads_at_its_end(tmp_path):
    report = soak(tmp_path, batches=100, per_iteration=25)
    assert report.batches == 100
    assert report.intact
    assert report.handles[0] == report.handles[1]
    assert report.threads[0] == report.threads[1]
    assert report.ratio < 3  # of times of a busy machine

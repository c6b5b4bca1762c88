"""The interpreter of an environment with verl and OpenRLHF, and the marks of tests that need it."""

import os

import pytest

PYTHON = os.environ.get("LASER_VERL_PYTHON")
MARKS = [
    pytest.mark.verl,
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="neither verl nor openrlhf is here; `make test-verl` installs both"),
]

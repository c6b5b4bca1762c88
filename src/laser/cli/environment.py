"""Environment of commands that load models, set before the libraries are imported; what the user has set stays."""

from __future__ import annotations

import os
import warnings

from laser.core.errors import DataWarning

ENVIRONMENT = {
    # Waiting threads sleep: spinning makes torch many times slower when another process is busy.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",  # bars of loading and converting, in plain lines too
}


def prepare() -> None:
    """Set the environment, and silence what libraries say about each other."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.formatwarning = _formatted


_usual_format = warnings.formatwarning


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of laser's about data without the line of code that gives it; others as usual."""
    if issubclass(category, DataWarning):
        return f"warning: {message}\n"
    return _usual_format(message, category, filename, lineno, line)

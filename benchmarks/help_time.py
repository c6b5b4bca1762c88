"""``laser --help`` as a process: seconds, and their ratio to starting Python alone; median of several, in turn.

python benchmarks/help_time.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

_ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as installed: modules are compiled once


def seconds(*command: str) -> float:
    """Wall-clock time of one process."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
    return time.perf_counter() - begin


def main() -> None:
    """Time both in turn."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    help_command = (sys.executable, "-m", "laser.cli.main", "--help")
    bare = (sys.executable, "-c", "pass")
    seconds(*help_command)
    pairs = [(seconds(*help_command), seconds(*bare)) for _ in range(9)]
    median = statistics.median(a for a, _ in pairs)
    ratio = median / statistics.median(b for _, b in pairs)
    print(f"laser --help: {'under' if median < 0.5 else 'OVER'} half a second, {ratio:.1f} times a bare interpreter")
    sys.exit(median >= 0.5)


if __name__ == "__main__":
    main()

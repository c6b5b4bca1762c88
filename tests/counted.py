"""How many inputs a test tried: counted while it tries them, for docs/reliability.md.

`LASER_EFFORT` multiplies the number of inputs, `LASER_COUNTS` names the file that the counts are written to.
"""

import json
import os
from collections import Counter
from pathlib import Path

EFFORT = int(os.environ.get("LASER_EFFORT", "1"))
_COUNTS = Counter()


def times(number):
    """The number of inputs to try: `number` in the test suite, more where more effort is asked for."""
    return number * EFFORT


def count(what, number=1):
    """One more input of a kind was tried."""
    _COUNTS[what] += number


def write_counts():
    """Write the counts of this process if `LASER_COUNTS` is set."""
    if "LASER_COUNTS" in os.environ:
        Path(os.environ["LASER_COUNTS"]).write_text(json.dumps(_COUNTS))

"""Count runs with signs of over-optimization, by their reward models.

laser compare configs/lab/over-optimised.toml --out runs/over-optimised
python benchmarks/over_optimised.py runs/over-optimised
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Print a line for each pool, and one for each sign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="what laser compare wrote")
    out: Path = parser.parse_args().out
    by_pool: dict[str, list[list[dict]]] = {}
    for path in sorted(out.rglob("summary.json")):
        config = json.loads((path.parent / "config.json").read_text())
        pool = ", ".join(Path(model.get("model") or model["name"]).name for model in config["rewards"]["models"])
        by_pool.setdefault(pool, []).append(json.loads(path.read_text())["probe"]["over_optimised"])
    for pool, runs in by_pool.items():
        print(f"{pool}: {sum(map(bool, runs))} of {len(runs)} runs have signs")
        for sign in (sign for signs in runs for sign in signs):
            print(f"  {sign['what']} of {sign['category']}: {sign['before']:.2f} to {sign['after']:.2f}")


if __name__ == "__main__":
    main()

"""Count runs with signs of over-optimization, by their reward models.

laser compare configs/lab/over-optimised.toml --out runs/over-optimised
python benchmarks/over_optimised.py runs/over-optimised
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Print the signs of each run by pool: those of the probe, and a dev accuracy that fell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="what laser compare wrote")
    out: Path = parser.parse_args().out
    by_pool: dict[str, list[tuple[str, list[str]]]] = {}
    for path in sorted(out.rglob("summary.json")):
        config = json.loads((path.parent / "config.json").read_text())
        pool = ", ".join(Path(model.get("model") or model["name"]).name for model in config["rewards"]["models"])
        summary = json.loads(path.read_text())
        signs = [f"{one['what']} of {one['category']}" for one in summary["probe"]["over_optimised"]]
        if (summary["metric_change"] or {"high": 0})["high"] < 0:
            signs.append("dev accuracy")
        by_pool.setdefault(pool, []).append((path.parent.name, signs))
    for pool, runs in by_pool.items():
        print(f"{pool}: {sum(bool(signs) for _, signs in runs)} of {len(runs)} runs have signs")
        for name, signs in runs:
            print(f"  {name}: {', '.join(signs) or 'none'}")


if __name__ == "__main__":
    main()

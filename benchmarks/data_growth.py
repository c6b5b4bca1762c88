"""The data side with 10^2 to 10^5 prompts: memory and time of loading, splitting and drawing batches.

Each size runs in a separate process. Prints the bytes a prompt takes beyond the smallest size's, next to the bytes of
its own text, and the time per prompt relative to 10^3.

    python benchmarks/data_growth.py
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from laser.data.batches import batches
from laser.data.files import load_file
from laser.data.split import split

SIZES = (100, 1_000, 10_000, 100_000)
LENGTH = 500  # characters of a prompt


def write(path: Path, count: int) -> None:
    """This many different prompts in four categories."""
    with path.open("w") as file:
        for row in range(count):
            text = f"question {row}: " + "which of these is it? " * (LENGTH // 22)
            file.write(json.dumps({"prompt": text, "answer": str(row), "category": "abcd"[row % 4]}) + "\n")


def go_through(path: str, queue) -> None:
    """Load, split, and draw one iteration's batches."""
    before = peak()
    begin = time.perf_counter()
    splits = split(load_file(path), train=None, dev=32, test=32, seed=0)
    drawn = batches(splits.train, batch_size=16, num_batches=None, batching="by_category", seed=0, iteration=0)
    queue.put((peak() - before, time.perf_counter() - begin, len(drawn)))


def peak() -> int:
    """High-water mark of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Run all sizes."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    context = multiprocessing.get_context("spawn")
    found = {}
    with TemporaryDirectory() as folder:
        for count in SIZES:
            path = Path(folder) / f"{count}.jsonl"
            write(path, count)
            queue = context.Queue()
            process = context.Process(target=go_through, args=(str(path), queue))
            process.start()
            found[count] = (*queue.get(), path.stat().st_size / count)
            process.join()
    smallest = found[SIZES[0]][0]
    per_prompt = found[1_000][1] / 1_000
    for count, (held, spent, num_batches, size) in found.items():
        print(
            f"{count} prompts, {num_batches} batches: {(held - smallest) / count:.0f} bytes a prompt "
            f"(its line in the file has {size:.0f}), {spent / count / per_prompt:.2f} times the time per prompt of 1000"
        )


if __name__ == "__main__":
    main()

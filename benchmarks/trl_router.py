"""TRL's GRPO on the laboratory's policy: a router against all reward models at once, a random one, and each alone.

Every cell is one training; it is written to its own file when it is done, so the same command continues. The pools are
`mixed`, and `units`, in which the scores of one expert are multiplied by 100. `laser lab build --folder lab` makes the
models.

    python benchmarks/trl_router.py --lab lab --out runs/trl-router [--steps 60] [--seeds 5] [--methods adaptive sum]
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

from laser.core.types import Prompt
from laser.evaluation.answers import answer_check
from laser.integrations.trl import AdaptiveReward

EXPERTS = ("numbers", "reversal", "sorting", "mediocre")
CATEGORIES = ("addition", "reversal", "sorting", "comparison")
POOLS = ("mixed", "units")
ALL_AT_ONCE = {"sum": "sum_then_normalize", "normalize": "normalize_then_sum"}
METHODS = ("adaptive", "consensus", "random", *ALL_AT_ONCE, *EXPERTS)


def router(lab: Path, pool: str, seed: int, **sections: Any) -> dict[str, Any]:
    """The configuration of a router over the laboratory's reward models."""
    models = [
        {"name": name, "type": "loglik", "model": str(lab / f"mixed-{name}"), "device": "cpu"} for name in EXPERTS
    ]
    if pool == "units":
        models[0]["factor"] = 100
    context = {"source": "category", "categories": CATEGORIES, "normalization": "none"}
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
    if method == "random":
        return [AdaptiveReward(router(lab, pool, seed, selector={"type": "random"}))]
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
    given = model.generate(**encoded, do_sample=True, temperature=0.8, top_k=0, max_new_tokens=6)
    said = tokenizer.batch_decode(given[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    prompts = [Prompt("", tuple(row["prompt"]), row["category"], row["answer"]) for row in rows]
    return float(np.mean([is_right(prompt, text) for prompt, text in zip(prompts, said, strict=True)]))


def train(method: str, pool: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One cell: accuracy before and after, reward model calls, seconds."""
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
    return {"before": before, "after": after, "scored": scored, "seconds": seconds}


def table(out: Path, methods: list[str]) -> str:
    """Accuracy after training by method and pool: mean and standard error over seeds, and scores taken."""
    lines = ["| method | " + " | ".join(f"{pool}: accuracy | scores" for pool in POOLS) + " |"]
    lines.append("|---|" + "---|---|" * len(POOLS))
    for method in methods:
        cells = []
        for pool in POOLS:
            done = [json.loads(path.read_text()) for path in sorted(out.glob(f"{method}-{pool}-*.json"))]
            after = np.array([100 * cell["after"] for cell in done])
            error = after.std(ddof=1) / np.sqrt(len(after)) if len(after) > 1 else float("nan")
            scores = np.mean([sum(cell["scored"].values()) for cell in done]) if done else float("nan")
            cells.append(f"{after.mean():.1f} ± {error:.1f} ({len(done)}) | {scores:,.0f}" if done else "- | -")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=Path, default=Path("lab"))
    parser.add_argument("--out", type=Path, default=Path("runs/trl-router"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for pool in POOLS:
            for method in options.methods:
                path = options.out / f"{method}-{pool}-{seed}.json"
                if not path.exists():
                    found = train(method, pool, seed, options)
                    path.write_text(json.dumps(found))
                    print(f"{path.stem}: {found['before']:.3f} -> {found['after']:.3f}, {found['seconds']:.0f} s")
    print(table(options.out, options.methods))


if __name__ == "__main__":
    main()

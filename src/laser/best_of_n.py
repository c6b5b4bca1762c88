"""``laser best-of-n``: learn which reward model to rerank with, without touching the policy, and compare methods.

Source: arXiv 2410.01735, Sec. 3.3 and Table 2. n responses are sampled once per prompt; the bandit is trained on the
training prompts (the selected reward model picks the best response, the bandit is fed the scaled negative NLL), then
selects for the test prompts without learning. Responses and scores lie in the folder, so that all methods share them
and an interrupted comparison goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laser.bandits.base import Selector
from laser.build import (
    build_contexts,
    build_feedback,
    build_generator,
    build_policy,
    build_pool,
    build_selector,
    build_splits,
)
from laser.build.fitting import fit_prompts
from laser.config import RunConfig
from laser.config.compare import first_difference
from laser.config.load import parse_config
from laser.errors import ConfigError, DataError, RunDirectoryError
from laser.evaluation.metrics import ONE_SAMPLE, ORACLE, gold_answers, make_metric
from laser.lm.chat import encode_text
from laser.policy.policy import Policy
from laser.rewards.combine import combine_scores
from laser.seeding import stream, stream_seed
from laser.statefiles import load_state, save_state
from laser.training.pending import pack_responses, unpack_responses
from laser.training.run_directory import read_json, write_json
from laser.types import FloatArray, IntArray, Prompt, Response

_CHUNK = 64  # prompts of one file of responses


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method on the test prompts.

    Attributes:
        value: Mean metric of the picked responses.
        interval: 95% bootstrap interval over prompts.
        by_category: Mean metric by category.
        chosen: Share of test prompts that each reward model picked for (an ensemble's by weight).
        scored: Responses that reward models had to be asked about, training and test.
    """

    value: float
    interval: tuple[float, float]
    by_category: dict[str, float]
    chosen: dict[str, float]
    scored: int


class Bench:
    """The responses, contexts and scores that all methods share.

    Args:
        config: Policy, prompts with a test split, pool.
        out: Folder to keep them in.
        note: Told what happens.
    """

    def __init__(self, config: RunConfig, out: Path, note: Callable[[str], None]) -> None:
        self.config, self._out, self._note = config, out, note
        self.policy = build_policy(config)
        splits = build_splits(config)
        self.prompts = {"train": splits.train, "test": splits.test}
        for name, prompts in self.prompts.items():
            if not prompts:
                raise DataError(f"there are no {name} prompts; set split.{name}")
            fitted = fit_prompts(config, self.policy, prompts, config.generation.max_new_tokens)
            self.prompts[name] = fitted.prompts
            if fitted.num_cut:
                note(f"{fitted.num_cut} {name} prompts cut in the middle to fit, {fitted.num_tokens} tokens in all")
        self.pool = build_pool(config)
        self.responses = {name: self._sampled(name) for name in self.prompts}
        self.contexts = {name: self.policy.embed(prompts) for name, prompts in self.prompts.items()}
        self._scores: dict[tuple[str, int], list[FloatArray]] = {}

    def scores(self, split: str, arm: int) -> list[FloatArray]:
        """Scores of all responses of a split by one reward model, from the folder if they are there."""
        if (split, arm) not in self._scores:
            path = self._out / f"scores-{split}-{self.pool.names[arm]}"
            if path.with_suffix(".json").is_file():
                flat = load_state(path)["scores"]
            else:
                self._note(f"scoring {split} with {self.pool.names[arm]}")
                texts = [[response.text for response in row] for row in self.responses[split]]
                flat = np.concatenate(self.pool.score(arm, self.prompts[split], texts))
                save_state(path, {"scores": flat})
            ends = np.cumsum([len(row) for row in self.responses[split]])[:-1]
            self._scores[split, arm] = np.split(flat, ends)
        return self._scores[split, arm]

    def _sampled(self, split: str) -> list[list[Response]]:
        prompts, generation = self.prompts[split], self.config.generation
        generator = build_generator(generation, self.policy)
        rows: list[list[Response]] = []
        for begin in range(0, len(prompts), _CHUNK):
            path = self._out / f"responses-{split}-{begin:06d}"
            chunk = prompts[begin : begin + _CHUNK]
            if not path.with_suffix(".json").is_file():
                self._note(f"sampling for {split} prompts {begin} to {begin + len(chunk)} of {len(prompts)}")
                seeds = [
                    stream_seed(self.config.seed, "generation", 0 if split == "train" else 1, begin + row)
                    for row in range(len(chunk))
                ]
                replies = generator.generate(
                    chunk,
                    num_responses=generation.num_responses,
                    temperature=generation.temperature,
                    top_p=generation.top_p,
                    max_new_tokens=generation.max_new_tokens,
                    seeds=seeds,
                )
                save_state(path, pack_responses([replies]))
            rows.extend(unpack_responses(load_state(path))[0])
        return rows


def best_of_n(
    config: RunConfig,
    out: str | Path,
    methods: Mapping[str, RunConfig],
    *,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, MethodResult]:
    """Compare methods of choosing the reward model that reranks n responses.

    Args:
        config: Policy, prompts (training and test), pool and `generation.num_responses`.
        out: Folder of responses, scores and `results.json`.
        methods: By name, the configuration whose selector, feedback and context are used; see `standard_methods`.
        note: Told what happens.

    Returns:
        One result per method, and those of the best response of all ("oracle") and of one at random ("one sample").

    Raises:
        LaserError: Something cannot be used, or `out` belongs to another configuration.
    """
    out = Path(out)
    _claim(config, out)
    bench = Bench(config, out, note)
    metric = make_metric(config.evaluation.metric, config.evaluation.answer)
    values = {
        name: [np.array([metric(prompt, response.text) for response in row]) for prompt, row in rows]
        for name, rows in (
            (name, list(zip(bench.prompts[name], bench.responses[name], strict=True))) for name in bench.prompts
        )
    }
    results = {}
    for name, method in methods.items():
        note(f"method {name}")
        results[name] = _run(bench, method, values)
        write_json(out / "results.json", {key: asdict(result) for key, result in results.items()})
    for name, pick in ((ORACLE, np.max), (ONE_SAMPLE, np.mean)):
        results[name] = _summarise(bench, np.array([pick(row) for row in values["test"]]), {}, 0, config.seed)
    write_json(out / "results.json", {key: asdict(result) for key, result in results.items()})
    return results


def standard_methods(config: RunConfig) -> dict[str, RunConfig]:
    """The methods of Table 2 for a configuration: its own selector, each reward model, and the baselines."""
    names = [model.name for model in config.rewards.models]
    patches: dict[str, dict[str, Any]] = {
        **{f"fixed: {name}": {"selector": {"type": "fixed", "arm": name}} for name in names},
        "random": {"selector": {"type": "random"}},
        "sequential": {"selector": {"type": "sequential"}},
        "score ensemble": {"selector": {"type": "ensemble"}},
        "score ensemble, ranks": {"selector": {"type": "ensemble"}, "rewards": {"combine": "rank"}},
        "online ensemble": {"selector": {"type": "online_ensemble"}},
    }
    methods = {f"configured: {config.selector.type}": config}
    for name, patch in patches.items():
        table = config.model_dump(mode="json")
        rewards = {**table["rewards"], **patch.get("rewards", {})}
        methods[name] = parse_config({**table, **patch, "rewards": rewards, "signal": {"type": "none"}})
    return methods


def _run(bench: Bench, method: RunConfig, values: Mapping[str, list[FloatArray]]) -> MethodResult:
    contexts = build_contexts(method, dim=bench.policy.context_dim)
    size, section = method.training.batch_size, method.best_of_n
    num_train = len(bench.prompts["train"])
    batches = [
        np.array(order[begin : begin + size])
        for epoch in range(section.epochs)
        for order in [stream(method.seed, "data", 1, epoch).permutation(num_train)]
        for begin in range(0, num_train, size)
    ]
    selector = build_selector(method, contexts, batches_per_iteration=len(batches))
    feedback = build_feedback(method.feedback)
    charge = _charges(bench, method, values["train"])
    scored = 0
    for rows in batches:
        contexts_MD = contexts(_rows_of(bench.contexts["train"][rows], method))
        selection = selector.select(contexts_MD)
        entries = selection.charged_E
        losses = []
        for row, arm in entries:
            of_row = rows if len(contexts_MD) == 1 else rows[row : row + 1]
            picks = [int(_best(bench.scores("train", arm)[prompt])) for prompt in of_row]
            losses.append(
                float(np.mean([charge(int(prompt), pick) for prompt, pick in zip(of_row, picks, strict=True)]))
            )
        scored += _num_scored(bench, "train", rows, selection.weights_MK)
        arms = np.array([arm for _, arm in entries], dtype=np.int64)
        selector.update(selection.id, feedback.scale(np.array(losses), arms))
    return _rerank(bench, method, selector, lambda rows: contexts(_rows_of(rows, method)), values["test"], scored)


def _rerank(
    bench: Bench,
    method: RunConfig,
    selector: Selector,
    prepare: Callable[[FloatArray], FloatArray],
    values: list[FloatArray],
    scored: int,
) -> MethodResult:
    """Pick for the test prompts, without learning, in batches of the training size."""
    size, num_test, names = method.training.batch_size, len(values), bench.pool.names
    picked, chosen = np.empty(num_test), np.zeros(len(names))
    for begin in range(0, num_test, size):
        rows = np.arange(begin, min(begin + size, num_test), dtype=np.int64)
        selection = selector.select(prepare(bench.contexts["test"][rows]))
        selector.expire(selection.id)
        weights_BK = np.broadcast_to(selection.weights_MK, (len(rows), len(names)))
        scored += _num_scored(bench, "test", rows, selection.weights_MK)
        for row, weights_K in zip(rows, weights_BK, strict=True):
            num = len(values[row])
            scores_KN = np.full((len(names), num), np.nan)
            for arm in np.flatnonzero(weights_K):
                scores_KN[arm] = bench.scores("test", int(arm))[row]
            combination = "rank" if method.rewards.combine == "agreement" else method.rewards.combine
            picked[row] = values[row][_best(combine_scores(scores_KN, weights_K, combination))]
            chosen += weights_K
    shares = dict(zip(names, (chosen / num_test).tolist(), strict=True))
    return _summarise(bench, picked, shares, scored, method.seed)


def _charges(bench: Bench, method: RunConfig, values: list[FloatArray]) -> Callable[[int, int], float]:
    """Loss of the response picked for a training prompt."""
    responses = bench.responses["train"]
    match method.best_of_n.reward:
        case "metric":
            return lambda prompt, pick: -float(values[prompt][pick])
        case "gold_nll":
            return _gold_nll(bench.policy, bench.prompts["train"], responses)
        case "nll":
            return lambda prompt, pick: -float(np.mean(responses[prompt][pick].sampling_logps or [0.0]))


def _gold_nll(
    policy: Policy, prompts: Sequence[Prompt], responses: list[list[Response]]
) -> Callable[[int, int], float]:
    """NLL per token of the gold answer, given the prompt and the response picked: what it is worth as a draft."""
    known: dict[tuple[int, int], float] = {}

    def charge(prompt: int, pick: int) -> float:
        if (prompt, pick) not in known:
            start = [*policy.encode([prompts[prompt]])[0], *encode_text(policy.tokenizer, responses[prompt][pick].text)]
            gold = encode_text(policy.tokenizer, f"\nFinal answer: {gold_answers(prompts[prompt])[0]}")
            logp = policy.logps([start], [[gold]], which="policy")[0]
            known[prompt, pick] = -float(logp[0]) / len(gold)
        return known[prompt, pick]

    return charge


def _best(scores_N: FloatArray) -> int:
    """The highest finite score; the first response where there is none."""
    return int(np.nanargmax(scores_N)) if np.isfinite(scores_N).any() else 0


def _rows_of(contexts_BD: FloatArray, method: RunConfig) -> FloatArray:
    return contexts_BD if method.training.granularity == "per_prompt" else contexts_BD.mean(axis=0, keepdims=True)


def _num_scored(bench: Bench, split: str, rows: IntArray, weights_MK: FloatArray) -> int:
    weights_BK = np.broadcast_to(weights_MK, (len(rows), weights_MK.shape[1]))
    return sum(
        int(np.count_nonzero(weights_K)) * len(bench.responses[split][int(row)])
        for row, weights_K in zip(rows, weights_BK, strict=True)
    )


def _summarise(bench: Bench, picked: FloatArray, chosen: dict[str, float], scored: int, seed: int) -> MethodResult:
    categories = np.array([prompt.category for prompt in bench.prompts["test"]])
    draws = stream(seed, "evaluation", 1).integers(len(picked), size=(1000, len(picked)))
    low, high = np.quantile(picked[draws].mean(axis=1), [0.025, 0.975])
    return MethodResult(
        value=float(picked.mean()),
        interval=(float(low), float(high)),
        by_category={str(name): float(picked[categories == name].mean()) for name in np.unique(categories)},
        chosen=chosen,
        scored=scored,
    )


def _claim(config: RunConfig, out: Path) -> None:
    record = out / "config.json"
    if record.is_file():
        difference = first_difference(parse_config(dict(read_json(record)), source=str(record)), config)
        if difference is not None:
            raise ConfigError(f"{difference}; the responses in {out} are of another configuration, choose a new --out")
        return
    if out.exists() and any(out.iterdir()):
        raise RunDirectoryError(f"{out} is not empty; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(record, config.model_dump(mode="json"))
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {out} ({error.strerror}); choose another --out") from error

"""``laser best-of-n``: learn which reward model to rerank with, without touching the policy, and compare methods.

Source: arXiv 2410.01735, Sec. 3.3 and Table 2. n responses are sampled once per prompt; the bandit is trained on the
training prompts (the selected reward model picks the best response, the bandit is fed the scaled negative NLL), then
selects for the test prompts without learning. Responses and scores are kept in the folder: all methods share them, and
an interrupted comparison continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from laser.bandits.base import Selector
from laser.commands.scored_samples import RECORD, SOURCES, ScoreCounts, ScoredSamples, check_owner
from laser.config import RunConfig
from laser.config.load import parse_config
from laser.config.selection import BayesianRouterSelector, ClassifierSelector, FixedSelector
from laser.core.errors import ConfigError, RewardModelError
from laser.core.files import read_json, write_json
from laser.core.outputs import claim
from laser.core.seeding import stream
from laser.core.statistics import mean_share
from laser.core.types import FloatArray, IntArray, Selection
from laser.evaluation.answers import accepted_answers
from laser.evaluation.metrics import ONE_SAMPLE, ORACLE, Metric, Value, check_gold, gold_answers, make_metric
from laser.evaluation.unreadable import collect_unreadable, unreadable_lines
from laser.lm.chat import encode_text
from laser.rewards.combine import Combination, combine_scores, weights_by_variation
from laser.rewards.spreads import deviations_by_arm, spread
from laser.training.pairs import Candidates, orient_by_agreement
from laser.wiring import build_contexts, build_feedback, build_selector
from laser.wiring.identity import check_sources, scored_sources
from laser.wiring.learned import router_context

CLASSIFIER = "classifier"
"""The method that needs a trained router."""


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method on the test prompts.

    Attributes:
        value: Mean metric of the picked responses.
        interval: 95% interval over prompts: Wilson's where each response is right or wrong, a bootstrap otherwise.
        by_category: Mean metric by category.
        chosen: Share of test prompts that each reward model picked for (an ensemble's by weight).
        scored: Responses that reward models scored, training and test.
        without_choice: Test prompts of which no response has a finite score; they count with the mean metric of their
            responses, which is what one at random is worth.
        asked: Responses that each reward model of the method scored or could not score.
        failed: Reward models that failed and are left out of the comparison, and why.
    """

    value: float
    interval: tuple[float, float]
    by_category: dict[str, float]
    chosen: dict[str, float]
    scored: int
    without_choice: int
    asked: dict[str, ScoreCounts]
    failed: dict[str, str]


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
        note: Receives progress messages.

    Returns:
        One result per method, and those of the best response of all ("oracle") and of one at random ("one sample"). A
        reward model that fails is left out of all methods, and so is the method that takes no other.

    Raises:
        LaserError: A model or the data cannot be used, no reward model is left, or `out` holds other responses.
    """
    out = Path(out).absolute()  # a reward function may change the working directory
    check_owner(config, out)
    samples = ScoredSamples(config, out, note)
    section, test = config.evaluation, samples.prompts["test"]
    check_gold(test, section.metric, "test")
    metric = make_metric(section.metric, section.answer, test)
    for name, method in methods.items():
        if method.context.source != config.context.source:
            raise ConfigError(
                f"method {name!r} has context.source = {method.context.source!r} and the comparison "
                f"{config.context.source!r}; set the same one in both"
            )
        build_selector(method, build_contexts(method, dim=samples.embedder.context_dim))
    sources = scored_sources(config, samples.prompts)
    if any(out.glob("responses-*")):
        check_sources(read_json(out / SOURCES), sources, f"the responses in {out} were sampled and scored")
    claim(out, RECORD, config.model_dump(mode="json"))  # only now: a start that fails leaves no folder behind
    claim(out, SOURCES, sources)
    samples.sample()
    measured = [
        [metric(prompt, response.text) for response in row]
        for prompt, row in zip(samples.prompts["test"], samples.responses["test"], strict=True)
    ]
    for line in _unreadable(samples, measured):
        note(line)
    values = [np.array([one.value for one in row]) for row in measured]
    results = _compare(samples, methods, metric, values)
    for name, pick in ((ORACLE, np.max), (ONE_SAMPLE, np.mean)):
        samples.used.clear()
        results[name] = _summarise(samples, np.array([pick(row) for row in values]), config.seed)
    write_json(out / "results.json", {key: asdict(result) for key, result in results.items()})
    return results


def _unreadable(samples: ScoredSamples, measured: Sequence[Sequence[Value]]) -> list[str]:
    """Lines on the responses to test prompts whose answer cannot be read."""
    found = collect_unreadable(
        (prompt.id, one.problem, response.text)
        for prompt, row, responses in zip(samples.prompts["test"], measured, samples.responses["test"], strict=True)
        for one, response in zip(row, responses, strict=True)
    )
    return unreadable_lines(found.as_record(), found.num_responses)


def standard_methods(config: RunConfig, *, router: str | Path | None = None) -> dict[str, RunConfig]:
    """The methods of Table 2 for a configuration: its own selector, each reward model, and the baselines.

    Args:
        config: Pool, and the selector that is compared.
        router: Folder that `laser train-classifier` wrote; None: the one that the selector names, and where it names
            none there is no method "classifier". That method gets the contexts that the classifier was trained with.

    Raises:
        ConfigError: The router is damaged.
    """
    names = [model.name for model in config.rewards.models]
    router = router or _router_of(config)
    patches: dict[str, dict[str, Any]] = {
        **{f"fixed: {name}": {"selector": {"type": "fixed", "arm": name}} for name in names},
        "random": {"selector": {"type": "random"}},
        "sequential": {"selector": {"type": "sequential"}},
        **({} if router is None else {CLASSIFIER: _with_router(Path(router))}),
        "score ensemble": {"selector": {"type": "ensemble"}},
        "score ensemble, ranks": {"selector": {"type": "ensemble"}, "rewards": {"combine": "rank"}},
        "agreement ensemble": {"selector": {"type": "ensemble"}, "rewards": {"combine": "agreement"}},
        "online ensemble": {"selector": {"type": "online_ensemble"}, "rewards": {"combine": config.rewards.combine}},
    }
    methods = {f"configured: {config.selector.type}": config}
    for name, patch in patches.items():
        table = config.model_dump(mode="json")
        rewards = {**table["rewards"], "combine": "raw", **patch.get("rewards", {})}
        methods[name] = parse_config({**table, **patch, "rewards": rewards, "signal": {"type": "none"}})
    return methods


def _with_router(router: Path) -> dict[str, Any]:
    context = {"context": router_context(router)} if (router / "router.json").is_file() else {}
    return {"selector": {"type": "classifier", "path": str(router)}, **context}


def _router_of(config: RunConfig) -> str | None:
    match config.selector:
        case ClassifierSelector(path=path) | BayesianRouterSelector(prior=path):
            return path
    return None


def _compare(
    samples: ScoredSamples, methods: Mapping[str, RunConfig], metric: Metric, values: list[FloatArray]
) -> dict[str, MethodResult]:
    """Results of all methods with the same reward models; if one fails, all methods run again without it."""
    while True:
        num_failed, results = len(samples.failed), {}
        left = {name: method for name, method in methods.items() if not _needs(method, samples.failed)}
        if not samples.available_K.any() or (methods and not left):
            reasons = "; ".join(samples.failed.values())
            raise RewardModelError(f"no reward model could be used: {reasons}; fix one and run the command again")
        try:
            for name, method in left.items():
                samples.note(f"method {name}")
                results[name] = _run(samples, method, metric, values)
            return results
        except RewardModelError:
            if len(samples.failed) == num_failed:
                raise


def _needs(method: RunConfig, failed: Mapping[str, str]) -> bool:
    """Whether a method uses only a reward model that failed."""
    return isinstance(method.selector, FixedSelector) and method.selector.arm in failed


def _run(samples: ScoredSamples, method: RunConfig, metric: Metric, values: list[FloatArray]) -> MethodResult:
    samples.used.clear()
    contexts = build_contexts(method, dim=samples.embedder.context_dim)
    size, section = method.training.batch_size, method.best_of_n
    num_train = len(samples.prompts["train"])
    batches = [
        np.array(order[begin : begin + size])
        for epoch in range(section.epochs)
        for order in [stream(method.seed, "data", 1, epoch).permutation(num_train)]
        for begin in range(0, num_train, size)
    ]
    selector = build_selector(method, contexts, batches_per_iteration=lambda: len(batches))
    feedback = build_feedback(method.feedback)
    charge = _charges(samples, method, metric)
    scored = 0
    for rows in batches:
        contexts_MD = contexts(_rows_of(samples.contexts["train"][rows], method))
        selection = _select(samples, selector, contexts_MD)
        entries = selection.charged_E
        losses = [
            _mean_loss(samples, arm, rows if len(contexts_MD) == 1 else rows[row : row + 1], charge)
            for row, arm in entries
        ]
        scored += _num_scored(samples, "train", rows, selection.weights_MK)
        arms = np.array([arm for _, arm in entries], dtype=np.int64)
        selector.update(selection.id, feedback.scale(np.array(losses), arms))
    return _rerank(samples, method, selector, lambda rows: contexts(_rows_of(rows, method)), values, scored)


def _select(samples: ScoredSamples, selector: Selector, contexts_MD: FloatArray) -> Selection:
    """Select among the reward models that have not failed."""
    available_K = samples.available_K
    try:
        return selector.select(contexts_MD, None if available_K.all() else available_K)
    except ValueError as error:
        if available_K.all():
            raise
        raise RewardModelError(
            f"the selector needs {', '.join(samples.failed)}, which failed ({error}); fix it and run again"
        ) from error


def _mean_loss(samples: ScoredSamples, arm: int, rows: IntArray, charge: Callable[[int, int], float]) -> float:
    """Mean loss of what a reward model picks; NaN where it has no score for any response of these prompts."""
    scores = samples.scores("train", arm)
    picks = [(int(row), _best(scores[row])) for row in rows]
    losses = [charge(row, pick) for row, pick in picks if pick is not None]
    return float(np.mean(losses)) if losses else float("nan")


def _rerank(
    samples: ScoredSamples,
    method: RunConfig,
    selector: Selector,
    prepare: Callable[[FloatArray], FloatArray],
    values: list[FloatArray],
    scored: int,
) -> MethodResult:
    """Pick for the test prompts, without learning, in batches of the training size."""
    size, num_test, names = method.training.batch_size, len(values), samples.pool.names
    picked, chosen, without_choice = np.empty(num_test), np.zeros(len(names)), 0
    for begin in range(0, num_test, size):
        rows = np.arange(begin, min(begin + size, num_test), dtype=np.int64)
        selection = _select(samples, selector, prepare(samples.contexts["test"][rows]))
        selector.expire(selection.id)
        weights_BK = np.broadcast_to(selection.weights_MK, (len(rows), len(names)))
        scored += _num_scored(samples, "test", rows, selection.weights_MK)
        chosen += weights_BK.sum(axis=0)
        spreads_K = _spreads(samples, selection.used_arms) if method.rewards.combine == "scaled" else None
        scores_BKN = [samples.weighted(int(row), weights_K) for row, weights_K in zip(rows, weights_BK, strict=True)]
        if method.rewards.combine == "variation":
            weights_BK = weights_by_variation(scores_BKN, weights_BK)
        for scores_KN, row, weights_K in zip(scores_BKN, rows, weights_BK, strict=True):
            pick = _pick(scores_KN, weights_K, method.rewards.combine, spreads_K)
            picked[row] = values[row].mean() if pick is None else values[row][pick]
            without_choice += pick is None
    shares = dict(zip(names, (chosen / num_test).tolist(), strict=True))
    return _summarise(samples, picked, method.seed, chosen=shares, scored=scored, without_choice=without_choice)


def _charges(samples: ScoredSamples, method: RunConfig, metric: Metric) -> Callable[[int, int], float]:
    """The loss of the response picked for a training prompt, as a function of both."""
    prompts, responses = samples.prompts["train"], samples.responses["train"]
    gold = _gold_nll(samples)

    def own(prompt: int, pick: int) -> float:
        return -float(np.mean(responses[prompt][pick].sampling_logps or [0.0]))

    match method.best_of_n.reward:
        case "metric":
            return lambda prompt, pick: -metric(prompts[prompt], responses[prompt][pick].text).value
        case "gold_nll":
            return gold
        case "nll":
            return own
        case "auto":
            return lambda prompt, pick: (gold if accepted_answers(prompts[prompt]) else own)(prompt, pick)


def _gold_nll(samples: ScoredSamples) -> Callable[[int, int], float]:
    """NLL per token of the gold answer, given the prompt and the picked response as a draft, in nats.

    Where the three do not fit the policy's context, the end of the draft is cut, then the end of the answer.
    """
    policy, prompts, responses, known = (
        samples.policy,
        samples.prompts["train"],
        samples.responses["train"],
        samples.gold_nlls,
    )

    def charge(prompt: int, pick: int) -> float:
        if (prompt, pick) not in known:
            asked = policy.encode([prompts[prompt]])[0]
            answer = encode_text(policy.tokenizer, f"\nFinal answer: {gold_answers(prompts[prompt])[0]}")
            gold = answer[: policy.context_length - len(asked)]
            draft = encode_text(policy.tokenizer, responses[prompt][pick].text)
            start = [*asked, *draft[: policy.context_length - len(asked) - len(gold)]]
            logp = policy.logps([start], [[gold]], which="policy")[0]
            known[prompt, pick] = -float(logp[0]) / len(gold)
        return known[prompt, pick]

    return charge


def _spreads(samples: ScoredSamples, used_arms: Iterable[int]) -> FloatArray:
    """Spread of the scores of each reward model in use over all test prompts, shape (K,); 0 for the others."""
    spreads_K = np.zeros(len(samples.pool.names))
    for arm in used_arms:
        (deviations_M,) = deviations_by_arm([row[None] for row in samples.scores("test", arm)])
        spreads_K[arm] = spread(deviations_M)
    return spreads_K


def _pick(
    scores_KN: FloatArray, weights_K: FloatArray, combination: Combination, spreads_K: FloatArray | None = None
) -> int | None:
    """The response that the weighted reward models like best; None where they score none."""
    if combination == "agreement" and np.count_nonzero(weights_K) > 1:
        return _most_wins(scores_KN, weights_K)
    return _best(combine_scores(scores_KN, weights_K, combination, spreads_K))


def _best(scores_N: FloatArray) -> int | None:
    """The highest finite score; the first of equal ones."""
    return int(np.nanargmax(scores_N)) if np.isfinite(scores_N).any() else None


def _most_wins(scores_KN: FloatArray, weights_K: FloatArray) -> int | None:
    """The response that wins most pairs by majority of the reward models; the first of equal ones.

    Source: arXiv 2410.01735, Sec. 4.1 and A.1, RM Agreement Ensemble, whose votes over pairs make training pairs.
    Decision where the paper is silent: best-of-n needs one response, so all pairs are voted on and wins are counted.
    """
    judged = np.flatnonzero(np.isfinite(scores_KN[weights_K > 0]).any(axis=0))
    if len(judged) == 0:
        return None
    pairs = tuple(combinations(judged.tolist(), 2))
    voted = orient_by_agreement(Candidates((pairs,), 0, 0, 0), [scores_KN], weights_K[None], len(pairs))
    wins_N = np.bincount([pair.chosen for pair in voted.pairs], minlength=scores_KN.shape[1])
    return int(judged[wins_N[judged].argmax()])


def _rows_of(contexts_BD: FloatArray, method: RunConfig) -> FloatArray:
    return contexts_BD if method.training.granularity == "per_prompt" else contexts_BD.mean(axis=0, keepdims=True)


def _num_scored(samples: ScoredSamples, split: str, rows: IntArray, weights_MK: FloatArray) -> int:
    weights_BK = np.broadcast_to(weights_MK, (len(rows), weights_MK.shape[1]))
    return sum(
        int(np.count_nonzero(weights_K)) * len(samples.responses[split][int(row)])
        for row, weights_K in zip(rows, weights_BK, strict=True)
    )


def _summarise(
    samples: ScoredSamples,
    picked: FloatArray,
    seed: int,
    *,
    chosen: dict[str, float] | None = None,
    scored: int = 0,
    without_choice: int = 0,
) -> MethodResult:
    categories = np.array([prompt.category for prompt in samples.prompts["test"]])
    share = mean_share(picked, seed=seed, is_proportion=bool(np.isin(picked, (0.0, 1.0)).all()))
    return MethodResult(
        value=share.value,
        interval=(share.low, share.high),
        by_category={str(name): float(picked[categories == name].mean()) for name in np.unique(categories)},
        chosen=chosen or {},
        scored=scored,
        without_choice=without_choice,
        asked=samples.counts(),
        failed=dict(samples.failed),
    )

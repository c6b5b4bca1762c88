"""``laser chat``: talk to a trained policy; of n replies, the reward model that its selector chooses picks the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laser.config import RunConfig
from laser.config.load import Overrides, with_overrides
from laser.core.errors import ConfigError, RewardModelError
from laser.core.seeding import stream_seed
from laser.core.types import BoolArray, FloatArray, Message, Prompt, Response, Selection
from laser.evaluation.answers import Reader
from laser.policy.policy import Policy
from laser.rewards.combine import combine_scores, weights_by_variation
from laser.rewards.pool import RewardPool
from laser.rewards.spreads import deviations_by_arm
from laser.wiring import build_embedder, build_generator, build_policy, build_pool, build_splits, dev_answers
from laser.wiring.fitting import fit_prompts
from laser.wiring.trained import (
    build_frozen,
    build_streaming_generator,
    build_trained_policy,
    load_trained,
    read_run,
    restore_spreads,
)

_ACTED_ON = ("policy", "generation")
_ACTED_ON_TO_SCORE = (*_ACTED_ON, "rewards", "selector")


@dataclass(frozen=True, slots=True)
class ArmView:
    """A reward model, as the selector judged it for one prompt.

    Attributes:
        name: Its name.
        weight: Its weight in the scores; 1 for the one that a bandit chose.
        probability: Probability that the selector chooses it for this prompt; None if the user chose.
        value: The selector's value of it (LinUCB: the upper confidence bound of Eq. 1); None if the user chose.
    """

    name: str
    weight: float
    probability: float | None
    value: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply.

    Attributes:
        text: The reply.
        finished: False if it was cut at the token limit.
        candidates: All replies sampled, `text` among them.
        picked: Index of `text` among them.
        scores: Score of each; NaN where there is none. Empty for a single candidate.
        arms: The reward models; empty for a single candidate.
        notes: Reward models that could not be used, and why.
    """

    text: str
    finished: bool
    candidates: tuple[str, ...]
    picked: int
    scores: tuple[float, ...] = ()
    arms: tuple[ArmView, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Two answers to a dev prompt.

    Attributes:
        prompt: The prompt.
        before: Answer of the policy before training.
        after: Answer of the trained policy.
        right: Whether each is right; None for a prompt without a gold answer.
    """

    prompt: Prompt
    before: str
    after: str
    right: tuple[bool, bool] | None


def before_and_after(run: str | Path, num: int, *, trust: bool = False) -> list[BeforeAfter]:
    """Answers to dev prompts before and after training, sampled with the seeds of the run's dev checks.

    Args:
        run: The run directory.
        num: How many prompts: the first one of each category, then the next ones.
        trust: Act on the run's configuration although this user's laser has not signed it.

    Raises:
        LaserError: The run cannot be used or has no dev prompts.
    """
    config = read_run(Path(run), sections=(*_ACTED_ON, "data"), trust=trust)
    dev = build_splits(config).dev
    if not dev:
        raise ConfigError(f"{run} has no dev prompts to answer; set split.dev, or chat with it")
    longest = config.evaluation.max_new_tokens or config.generation.max_new_tokens
    policy = build_policy(config)
    rows = _spread_over_categories(dev)[:num]
    prompts = fit_prompts(config, policy, [dev[row] for row in rows], longest).prompts
    generator = build_generator(config.generation, policy)
    before = dev_answers(config, generator, prompts, rows)
    load_trained(policy, Path(run))
    after = dev_answers(config, generator, prompts, rows)
    reader = Reader(config.evaluation.answer, dev)
    return [
        BeforeAfter(prompt, one, two, _verdicts(reader, prompt, one, two))
        for prompt, (one, *_), (two, *_) in zip(prompts, before, after, strict=True)
    ]


def _spread_over_categories(prompts: Sequence[Prompt]) -> list[int]:
    """Rows of the prompts: the first of each category, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for row, prompt in enumerate(prompts):
        turns.append((seen[prompt.category], row))
        seen[prompt.category] += 1
    return [row for _, row in sorted(turns)]


def _verdicts(reader: Reader, prompt: Prompt, before: str, after: str) -> tuple[bool, bool] | None:
    if prompt.answer is None:
        return None
    return reader.is_right(prompt, before), reader.is_right(prompt, after)


class Chat:
    """A conversation with the policy of a run.

    Args:
        run: The run directory.
        best_of: Replies sampled for each turn; above 1 the best by the selected reward model is kept.
        reward_model: Name of the reward model that scores; None: the one that the run's selector chooses for the
            conversation, with what it learned in training and without learning more.
        overrides: Strings ``key=value`` laid over the run's configuration.
        trust: Act on the run's configuration although this user's laser has not signed it.
        on_text: Receives the reply so far while a single one is sampled in this process.

    Raises:
        LaserError: The run cannot be used.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        best_of: int = 1,
        reward_model: str | None = None,
        overrides: Overrides = (),
        trust: bool = False,
        on_text: Callable[[str], None] = lambda text: None,
    ) -> None:
        run = Path(run)
        if reward_model is not None and best_of < 2:
            raise ConfigError("a reward model picks among several replies; add --best-of 4 or more")
        stored = read_run(run, sections=_ACTED_ON_TO_SCORE if best_of > 1 else _ACTED_ON, trust=trust)
        self._config = with_overrides(stored, overrides)
        self._best_of = best_of
        self._policy = build_trained_policy(self._config, run)
        self._scorer: _Scorer | None = None
        if best_of > 1:
            self._scorer = _Scorer(self._config, stored, run, self._policy, reward_model)
        self._drawn: list[int] = []
        self._on_text = on_text
        self._generator = build_streaming_generator(self._config, self._policy, self._stream)
        self._messages: list[Message] = []
        self._num_turns = 0

    def say(self, text: str) -> Turn:
        """Answer the user's next message.

        Raises:
            DataError: The conversation is longer than the policy's context; `reset` starts a new one.
            LaserError: A server or model failed. The conversation stays as it was before.
        """
        section = self._config.generation
        messages = (*self._messages, {"role": "user", "content": text})
        prompt = Prompt(id=f"turn-{self._num_turns}", messages=messages, category="chat")
        self._policy.check_fits([prompt], section.max_new_tokens)
        self._drawn = []
        replies = self._generator.generate(
            [prompt],
            num_responses=self._best_of,
            temperature=section.temperature,
            top_p=section.top_p,
            max_new_tokens=section.max_new_tokens,
            seeds=[stream_seed(self._config.seed, "generation", self._num_turns)],
        )[0]
        turn = self._scorer.pick(prompt, replies) if self._scorer is not None else _only(replies)
        self._messages = [*messages, {"role": "assistant", "content": turn.text}]
        self._num_turns += 1
        return turn

    def reset(self) -> None:
        """Start a new conversation."""
        self._messages = []

    def close(self) -> None:
        """Release the reward models."""
        if self._scorer is not None:
            self._scorer.close()

    def _stream(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        if self._best_of > 1:
            return
        self._drawn.extend(tokens)
        text = str(self._policy.tokenizer.decode(self._drawn, skip_special_tokens=True))
        self._on_text(text.rstrip("\ufffd"))  # the bytes of a character may come in several tokens


class _Scorer:
    """Picks among replies by the reward model that a frozen selector chooses."""

    def __init__(
        self, config: RunConfig, stored: RunConfig, run: Path, policy: Policy, reward_model: str | None
    ) -> None:
        self._pool: RewardPool = build_pool(config)
        self._combination = "rank" if config.rewards.combine == "agreement" else config.rewards.combine
        self._forced: int | None = None
        if reward_model is not None:
            if reward_model not in self._pool.names:
                raise ConfigError(
                    f"the pool has no reward model {reward_model!r}; choose {', '.join(self._pool.names)}"
                )
            self._forced = self._pool.names.index(reward_model)
            return
        if self._combination == "scaled":
            restore_spreads(self._pool, run)
        self._embedder = build_embedder(stored.context, policy)
        self._contexts, self._selector = build_frozen(stored, run, self._embedder.context_dim)
        self._moments = self._contexts.state_dict()

    def pick(self, prompt: Prompt, replies: Sequence[Response]) -> Turn:
        """The best reply; the first where no reward model could score any."""
        texts = [reply.text for reply in replies]
        available_K = np.ones(len(self._pool.names), dtype=np.bool_)
        notes: list[str] = []
        scores_N = np.full(len(texts), np.nan)
        arms: tuple[ArmView, ...] = ()
        while available_K.any():
            try:
                weights_K, arms = self._choose(prompt, available_K)
            except ValueError:
                if not notes:
                    raise
                break  # a fixed selector has no other reward model
            try:
                scores_KN = self._pool.score_selection(weights_K[None], [prompt], [texts])[0]
            except RewardModelError as error:
                notes.append(str(error))
                available_K &= weights_K == 0
                continue
            self._pool.spreads.add(deviations_by_arm([scores_KN]))
            if self._combination == "variation":
                weights_K = weights_by_variation([scores_KN], weights_K[None])[0]
            scores_N = combine_scores(scores_KN, weights_K, self._combination, self._pool.spreads.values_K)
            break
        picked = int(np.nanargmax(scores_N)) if np.isfinite(scores_N).any() else 0
        return Turn(
            text=texts[picked],
            finished=replies[picked].finished,
            candidates=tuple(texts),
            picked=picked,
            scores=tuple(scores_N.tolist()),
            arms=arms,
            notes=tuple(notes),
        )

    def close(self) -> None:
        """Release the reward models."""
        self._pool.release_all()

    def _choose(self, prompt: Prompt, available_K: BoolArray) -> tuple[FloatArray, tuple[ArmView, ...]]:
        names = self._pool.names
        if self._forced is not None:
            weights_K = np.eye(len(names))[self._forced]
            available_K &= weights_K > 0  # once it fails, none is left
            return weights_K, (ArmView(names[self._forced], 1.0, None, None),)
        self._contexts.load_state_dict(self._moments)  # this turn must not change the contexts of later ones
        selection = self._selector.select(self._contexts(self._embedder.embed([prompt])), available_K)
        self._selector.expire(selection.id)
        return selection.weights_MK[0], _views(names, selection)


def _views(names: Sequence[str], selection: Selection) -> tuple[ArmView, ...]:
    columns = (selection.weights_MK[0], selection.probabilities_MK[0], selection.values_MK[0])
    return tuple(
        ArmView(name, float(weight), float(probability), float(value))
        for name, weight, probability, value in zip(names, *columns, strict=True)
    )


def _only(replies: Sequence[Response]) -> Turn:
    return Turn(replies[0].text, replies[0].finished, (replies[0].text,), 0)

"""``laser eval``: the responses of trained and untrained policies to held-out prompts, kept and measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from laser.config import RunConfig, load_config
from laser.config.load import Overrides, with_overrides
from laser.core.errors import ConfigError, DataError, LaserError
from laser.core.files import atomic_write, in_words, open_regular, read_bytes
from laser.core.outputs import JUDGED, MEASURED, results_file, write_results
from laser.core.seeding import stream_seed
from laser.core.statistics import PairedChange
from laser.core.types import Prompt
from laser.data.responses import Answered, load_responses, prompt_key, response_row
from laser.data.tasks import MetricName
from laser.evaluation.measure import Measured, change, measure
from laser.evaluation.metrics import check_gold
from laser.wiring import build_generator, build_splits
from laser.wiring.fitting import fit_prompts
from laser.wiring.identity import answer_identity
from laser.wiring.trained import build_trained_policy, read_run

SplitName = Literal["dev", "test"]
Note = Callable[[str], None]
Targets = str | Path | Sequence[str | Path]

_ACTED_ON = ("policy", "generation", "data")
_CHUNK = 64  # prompts sampled before their responses are kept
_BASE = "base"
_BEGIN, _SIGNED = b'{"id": ', b'"sampled_by": "'  # how `response_row` writes


@dataclass(frozen=True, slots=True)
class Target:
    """A policy to evaluate.

    Attributes:
        label: What tables and files call it.
        config: Its configuration, overrides laid over it.
        stored: Its configuration as it was trained.
        run: Its run directory; None: untrained.
    """

    label: str
    config: RunConfig
    stored: RunConfig
    run: Path | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Responses of several policies to one set of prompts.

    Attributes:
        config: The configuration of the first policy, which says what is asked and how.
        prompts: The prompts.
        responses: One to each prompt, by policy.
        files: Where they are kept, by policy; empty if they are not.
        seen: How many of the prompts were among a policy's training prompts; None where that is unknown.
    """

    config: RunConfig
    prompts: Sequence[Prompt]
    responses: dict[str, list[Answered]]
    files: dict[str, Path]
    seen: dict[str, int | None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        metric: `evaluation.metric` of the first policy's configuration.
        split: Which prompts.
        measured: Each policy's metric.
        differences: Each other policy's metric minus the first's, on the same prompts.
        answers: The responses.
    """

    metric: str
    split: SplitName
    measured: dict[str, Measured]
    differences: dict[str, PairedChange]
    answers: Answers

    def as_record(self) -> dict[str, Any]:
        """JSON-able form, the content of the results file."""
        files, seen = self.answers.files, self.answers.seen
        return {
            "metric": self.metric,
            "split": self.split,
            "prompt_ids": [prompt.id for prompt in self.answers.prompts],  # in the order of the policies' `values`
            "policies": {
                label: {
                    **measured.as_record(),
                    "seen_in_training": seen[label],
                    "responses": files[label].name if label in files else None,
                }
                for label, measured in self.measured.items()
            },
            "differences": {label: found.as_record() for label, found in self.differences.items()},
        }


def evaluate(
    targets: Targets,
    *,
    split: SplitName = "dev",
    base: bool = False,
    overrides: Overrides = (),
    out: str | Path | None = None,
    trust: bool = False,
    note: Note = lambda _: None,
) -> Evaluation:
    """Measure policies on held-out prompts with gold answers.

    All answer the prompts of the first, as its `evaluation` section says (greedy unless a temperature is set), each
    under its own system prompt.

    Args:
        targets: A run directory, or several; TOML configurations stand for their untrained model.
        split: Prompts to ask: "dev" or "test".
        base: Also measure the model that the first run started from, and compare the others with it.
        overrides: Strings ``key=value`` laid over every configuration.
        out: A JSON file for the results, which may hold earlier ones; every response is kept next to it, so that an
            interrupted evaluation continues and a judge can compare the responses later.
        trust: Act on the configuration of a run although this user's laser has not signed it.
        note: Receives progress messages.

    Raises:
        LaserError: Something cannot be used, there are no such prompts, or they have no gold answers.
    """
    targets = listed(targets)
    path = results_file(out, inputs=targets, replaces=(MEASURED, JUDGED))
    chosen = resolve_targets(targets, base=base, overrides=overrides, trust=trust)
    return evaluate_targets(chosen, split=split, out=path, note=note)


def evaluate_targets(targets: Sequence[Target], *, split: SplitName, out: Path | None, note: Note) -> Evaluation:
    """Measure policies whose configurations are already loaded; see `evaluate`."""
    section = targets[0].config.evaluation
    answers = answer_targets(targets, split=split, out=out, note=note, metric=section.metric)
    measured = {
        label: measure(
            answers.prompts,
            [one.text for one in responses],
            [one.finished for one in responses],
            metric=section.metric,
            answer_format=section.answer,
            seed=answers.config.seed,
        )
        for label, responses in answers.responses.items()
    }
    first, *others = measured
    differences = {label: change(measured[first], measured[label], seed=answers.config.seed) for label in others}
    evaluation = Evaluation(section.metric, split, measured, differences, answers)
    if out is not None:
        write_results(out, evaluation.as_record())
    return evaluation


def answer_targets(
    targets: Sequence[Target], *, split: SplitName, out: Path | None, note: Note, metric: MetricName | None = None
) -> Answers:
    """Sample one response to each prompt from each policy, or take those that are kept next to `out`.

    Args:
        targets: The policies; the first's configuration says how all are asked.
        split: Prompts to ask.
        out: Where results are written, if anywhere.
        note: Receives progress messages.
        metric: What they will be measured by, if any; gold answers are checked before anything is sampled.

    Raises:
        LaserError: Something cannot be used, or the files next to `out` hold other responses.
    """
    config = targets[0].config
    splits = build_splits(config)
    prompts = list(splits.dev if split == "dev" else splits.test)
    if not prompts:
        raise DataError(f"there are no {split} prompts; set split.{split}")
    if metric is not None:
        check_gold(prompts, metric, split)
    files = {target.label: _beside(out, target.label) for target in targets} if out is not None else {}
    seen = {target.label: _num_seen(target, prompts, config) for target in targets}
    responses = {target.label: _respond(target, prompts, config, files.get(target.label), note) for target in targets}
    return Answers(config, prompts, responses, files, seen)


def listed(targets: Targets) -> list[str | Path]:
    """The targets as a list; a single path is a list of one."""
    return [targets] if isinstance(targets, str | Path) else list(targets)


def resolve_targets(
    paths: Sequence[str | Path],
    *,
    base: bool,
    overrides: Overrides,
    trust: bool,
    labels: Sequence[str] | None = None,
    taken: Sequence[str] = (),
) -> list[Target]:
    """Read the configurations of what is to be evaluated.

    Args:
        paths: Runs and configurations.
        base: See `evaluate`.
        overrides: See `evaluate`.
        trust: See `evaluate`.
        labels: What to call them; None: `unique_labels`.
        taken: Labels that something else has.

    Raises:
        LaserError: One cannot be used.
    """
    if not paths:
        raise ConfigError("nothing to evaluate; name a run directory or a configuration")
    labels = unique_labels(paths) if labels is None else labels
    targets = [_target(Path(path), label, overrides, trust) for path, label in zip(paths, labels, strict=True)]
    if base and targets[0].run is not None:
        label = _BASE if _BASE not in (*labels, *taken) else f"{_BASE} of {targets[0].label}"
        targets.insert(0, Target(label, targets[0].config, targets[0].stored, None))
    return targets


def _target(path: Path, label: str, overrides: Overrides, trust: bool) -> Target:
    if path.suffix == ".toml":
        config = load_config(path, overrides)
        return Target(label, config, config, None)
    if path.is_file():
        raise ConfigError(f"{path} is neither a run directory nor a .toml configuration; responses are for --judge")
    stored = read_run(path, sections=_ACTED_ON, trust=trust)
    return Target(label, with_overrides(stored, overrides), stored, path)


def unique_labels(paths: Sequence[str | Path]) -> list[str]:
    """Short names of files and folders: their last part, or the whole path where two share it."""
    names = [Path(path).resolve().stem if Path(path).is_file() else Path(path).resolve().name for path in paths]
    labels = [
        name if names.count(name) == 1 else str(path).strip("/.").replace("/", "-")
        for name, path in zip(names, paths, strict=True)
    ]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"{label} is named twice; name each policy once")
    return labels


def _beside(out: Path, label: str) -> Path:
    return out.with_name(f"{out.stem}.{label.replace(' ', '-')}.jsonl")


def _num_seen(target: Target, prompts: Sequence[Prompt], config: RunConfig) -> int | None:
    """How many of the prompts the policy was trained on: none where they are from the same split as its own."""
    stored = target.stored
    if target.run is None or (stored.data, stored.split, stored.seed) == (config.data, config.split, config.seed):
        return 0
    try:
        trained_on = {prompt_key(prompt) for prompt in build_splits(stored).train}
    except LaserError:  # its data are gone
        return None
    return sum(prompt_key(prompt) in trained_on for prompt in prompts)


def _respond(
    target: Target, prompts: Sequence[Prompt], config: RunConfig, path: Path | None, note: Note
) -> list[Answered]:
    identity = answer_identity(target.config, target.run, config)
    kept = _kept(path, identity, prompts) if path is not None else {}
    missing = [row for row, prompt in enumerate(prompts) if prompt.id not in kept]
    if not missing:
        note(f"{target.label}: all {len(prompts)} responses are there")
        return [kept[prompt.id] for prompt in prompts]
    note(f"{target.label}: loading")
    longest = config.evaluation.max_new_tokens or config.generation.max_new_tokens
    policy = build_trained_policy(target.config, target.run)
    asked = fit_prompts(target.config, policy, prompts, longest)
    if asked.num_cut:
        note(f"{target.label}: {asked.num_cut} prompts cut in the middle to fit, {asked.num_tokens} tokens in all")
    generator = build_generator(target.config.generation, policy)
    for begin in range(0, len(missing), _CHUNK):
        rows = missing[begin : begin + _CHUNK]
        note(f"{target.label}: sampling for prompts {begin + 1} to {begin + len(rows)} of {len(missing)}")
        replies = generator.generate(
            [asked.prompts[row] for row in rows],
            num_responses=1,
            temperature=config.evaluation.temperature,
            top_p=1.0,
            max_new_tokens=longest,
            seeds=[stream_seed(config.seed, "evaluation", row) for row in rows],
        )
        fresh = [
            Answered(prompts[row], reply[0].text, reply[0].finished, identity)
            for row, reply in zip(rows, replies, strict=True)
        ]
        kept.update({one.prompt.id: one for one in fresh})
        if path is not None:
            _append(path, fresh)
    return [kept[prompt.id] for prompt in prompts]


def _kept(path: Path, identity: str, prompts: Sequence[Prompt]) -> dict[str, Answered]:
    """The responses of an earlier, interrupted evaluation, by prompt id; a half-written last line is cut off.

    Raises:
        ConfigError: They are of other weights, settings or prompts.
        DataError: The file holds something else.
    """
    content = read_bytes(path) if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content and _is_half_written(whole, content[len(whole) :]):
        atomic_write(path, whole)
        content = whole
    if not content.strip():
        return {}
    asked = {prompt.id: prompt for prompt in prompts}
    kept: dict[str, Answered] = {}
    for one in load_responses(path):
        prompt = asked.get(one.prompt.id)
        if one.sampled_by != identity or prompt is None or prompt_key(prompt) != prompt_key(one.prompt):
            raise ConfigError(f"{path} holds responses of other weights, settings or prompts; choose another --out")
        kept[prompt.id] = replace(one, prompt=prompt)
    return kept


def _is_half_written(whole: bytes, tail: bytes) -> bool:
    """Whether what follows the last end of a line is a row of ours that was not finished, and not a user's row."""
    if not all(_SIGNED in line for line in whole.splitlines()) or not (tail + _BEGIN[len(tail) :]).startswith(_BEGIN):
        return False
    try:
        json.loads(tail)
    except ValueError:
        return True
    return _SIGNED in tail


def _append(path: Path, answered: Sequence[Answered]) -> None:
    with in_words("write to", path, "choose another --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_regular(path, "ab") as file:
            file.write("".join(response_row(one) for one in answered).encode())

"""``laser label --engine ray``: a labeling job as a Ray Data pipeline, on one machine or many.

Batches flow through a pool of actors that chooses and samples, then through one pool per reward model, which scores the
prompts that chose it, to tasks that pair and write. A batch depends on no other, and is one file that appears whole
under a fixed name. So the rows are those of one process for any number of workers, in any order, and if workers die.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from laser.commands.label import (
    LabelReport,
    address,
    build_filter,
    count_batch,
    finish_job,
    kept_prompts,
    pair_rows,
    shown,
    without_unread,
)
from laser.commands.label_files import PROMPTS_FOLDER, LabelFolder, Shard
from laser.commands.label_parts import Format, Part, writing
from laser.config import RunConfig
from laser.core.errors import ConfigError, DataError, LaserError, RewardModelError
from laser.core.files import atomic_write, make_folder, read_bytes
from laser.core.types import Batch, FloatArray, Prompt, Selection
from laser.rewards.spreads import RunningSpreads
from laser.training.batch import PairFilter, draw_candidates, finite, orient, prepare_contexts, sample_at
from laser.training.pairs import Candidates
from laser.training.progress import Progress
from laser.wiring import (
    build_contexts,
    build_embedder,
    build_generator,
    build_policy,
    build_pool,
    build_selector,
    build_splits,
)
from laser.wiring.fitting import fit_prompts
from laser.wiring.identity import scored_sources, selector_source

_INDEPENDENT = {"fixed", "ensemble", "frozen", "classifier"}
_BATCHES_PER_ROW = 4  # batches of one part that are read together, and done again together if an actor dies


@dataclass(slots=True, repr=False)  # Ray Data writes out each object that Arrow cannot hold before it pickles it
class _Work:
    """A batch on its way through the pipeline."""

    part: Part
    step: int
    prompts: Sequence[Prompt]
    selection: Selection
    texts: list[list[str]]
    candidates: Candidates
    scores_BKN: list[FloatArray]
    usage: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Done:
    """A batch that is written, with the record for the display."""

    part: str
    step: int
    record: dict[str, Any]


def label_with_ray(
    config: RunConfig,
    out: str | Path,
    *,
    format: Format = "jsonl",
    shard: str | None = None,
    workers: int | None = None,
    gpus: float | None = None,
    progress: Progress | None = None,
) -> LabelReport:
    """`laser.label` on the Ray cluster at RAY_ADDRESS, or on this machine.

    Args:
        config: As for `laser.label`; the selector must choose for each batch alone.
        out: Folder of the data set, on a file system that all nodes see.
        format: JSON Lines or Parquet.
        shard: "I/N", as for `laser.label`.
        workers: Most actors of the policy, and of each reward model; None: one for each node or GPU.
        gpus: GPUs of each actor with a model on its device, which may be a fraction; None: one where the cluster has
            any.
        progress: Observes the job.

    Raises:
        LaserError: As for `laser.label`; also if Ray is not installed, no cluster answers, or a reward model fails
            `rewards.max_failures` times in a row.
    """
    progress, mine = progress or Progress(), Shard.parse(shard) if shard is not None else Shard()
    _check_independent(config)
    folder = LabelFolder(Path(out).absolute(), format, mine)
    folder.check_owner(config)
    _connect()  # before the prompts, which may take minutes to read
    prompts = kept_prompts(build_splits(config).train, shard=mine)
    if not prompts:
        raise DataError("there are no prompts to label; set split.train, or lower split.dev and split.test")
    frozen = build_filter(config, prompts)
    sources = scored_sources(config, {"train": prompts})
    folder.claim(config, {**sources, "selector": selector_source(config)}, engine="ray")
    with folder.locked():
        parts = folder.parts(len(prompts), config.training.batch_size)
        left = {part.name: set(part.steps) - part.done_steps() for part in parts if not part.is_done()}
        num_batches = sum(len(part.steps) for part in parts)
        num_done = num_batches - sum(map(len, left.values()))
        progress.started(iterations=1, batches_per_iteration=num_batches, iteration=0, step=num_done)
        for part in parts:
            if left.get(part.name):
                _write_prompts(part, prompts, config.training.batch_size)
            elif part.name in left:
                part.finish()
        by_name = {part.name: part for part in parts}
        write = partial(_write, config=config, filter_pairs=frozen.filter_pairs)
        for done in _results(without_unread(config), [by_name[name] for name in left], left, workers, gpus, write):
            progress.batch(done.record)
            left[done.part].discard(done.step)
            if not left[done.part]:
                by_name[done.part].finish()
                _prompts_file(by_name[done.part]).unlink()
        for part in parts:  # of one that was finished when the process was killed
            _prompts_file(part).unlink(missing_ok=True)
        with suppress(OSError):  # another shard's prompts are there
            (folder.path / PROMPTS_FOLDER).rmdir()
        return finish_job(folder, parts, frozen.notes)


def _check_independent(config: RunConfig) -> None:
    """Refuse what makes a batch depend on those before it."""
    selector = config.selector.type
    if selector not in _INDEPENDENT:
        raise ConfigError(
            f"--engine ray labels in any order, and a selector of type {selector!r} remembers them; use frozen, "
            "classifier, fixed or ensemble, or --shard"
        )
    if config.rewards.combine == "scaled":
        raise ConfigError("rewards.combine = 'scaled' remembers earlier batches; use another, or --shard")
    if selector == "classifier" and config.context.normalization in ("standardize", "unit"):
        raise ConfigError(
            f"context.normalization = {config.context.normalization!r} remembers earlier batches; use 'none' or 'l2', "
            "or --shard"
        )


def _connect() -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start Ray on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray; install it with: pip install 'laser-rm[ray]'") from error
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or "local"  # Ray would look for a cluster that once ran here
    try:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:  # of which a refused connection is one
        raise ConfigError(
            f"no Ray cluster answers ({error}); correct RAY_ADDRESS, start it with `ray start --head`, or unset "
            "RAY_ADDRESS to use this machine alone"
        ) from error


def _check_answers(address: str) -> None:
    """Open a connection to HOST:PORT, because Ray itself tries for minutes; raises OSError if nothing answers."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _results(
    config: RunConfig,
    parts: Sequence[Part],
    left: dict[str, set[int]],
    workers: int | None,
    gpus: float | None,
    write: Callable[[dict[str, Any]], dict[str, Any]],
) -> Iterator[_Done]:
    """Label batches and `write` them; yields each that is written, in any order."""
    import ray
    import ray.data

    todo = [
        {"part": part, "steps": steps[begin : begin + _BATCHES_PER_ROW]}
        for part in parts
        for steps in [sorted(left[part.name])]
        for begin in range(0, len(steps), _BATCHES_PER_ROW)
    ]
    if not todo:
        return
    resources = ray.cluster_resources()
    gpus = min(1.0, resources.get("GPU", 0.0)) if gpus is None else gpus
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    most = workers or max(1, nodes, int(resources.get("GPU", 0.0)))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0  # an actor stays: loading a model is dear
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    pool, writers = ray.data.ActorPoolStrategy(min_size=1, max_size=most), ray.data.TaskPoolStrategy(size=most)
    batches = ray.data.from_items(todo, override_num_blocks=len(todo)).flat_map(
        _Sampler, fn_constructor_args=(config,), compute=pool, num_cpus=1, num_gpus=gpus
    )
    for arm, model in enumerate(config.rewards.models):
        on_device = hasattr(model, "device")
        batches = batches.map(
            _Scorer,
            fn_constructor_args=(config, arm),
            compute=pool,
            num_cpus=1 if on_device else 0.1,
            num_gpus=gpus if on_device else 0,
        )
    try:
        for row in batches.map(write, compute=writers, num_cpus=0.1).iter_rows():
            yield row["done"]
    except Exception as error:  # Ray wraps what actors raise
        raise _unwrapped(error) from error


def _unwrapped(error: BaseException) -> Exception:
    """The error of ours that Ray wraps, or one that says what happened."""
    found: BaseException | None = error
    while found is not None and (not isinstance(found, LaserError) or hasattr(found, "cause")):  # Ray's has a cause
        found = getattr(found, "cause", None) or found.__cause__
    if isinstance(found, LaserError):
        return found
    return RewardModelError(f"the Ray job failed ({error}); fix the cause and run the command again, which continues")


def _prompts_file(part: Part) -> Path:
    return part.folder / PROMPTS_FOLDER / f"{part.name}.jsonl"


def _write_prompts(part: Part, prompts: Sequence[Prompt], size: int) -> None:
    """Write the prompts of a part where all nodes can read them."""
    lines = []
    for prompt in prompts[part.steps.start * size : part.steps.stop * size]:
        row = [prompt.id, prompt.messages, prompt.category, prompt.answer, prompt.metadata, prompt.conversational]
        try:
            lines.append(json.dumps(row) + "\n")
        except TypeError as error:
            raise DataError(
                f"prompt {prompt.id!r} has a field that is not JSON ({error}); convert it to text"
            ) from error
    with writing(part.folder):
        make_folder(_prompts_file(part).parent)
        atomic_write(_prompts_file(part), "".join(lines).encode())


def _read_prompts(part: Part, steps: Sequence[int], size: int) -> Iterator[tuple[int, list[Prompt]]]:
    """The number and the prompts of each of some batches of a part."""
    lines = read_bytes(_prompts_file(part)).splitlines()
    for step in map(int, steps):
        begin = (step - part.steps.start) * size
        rows = [json.loads(line) for line in lines[begin : begin + size]]
        yield step, [Prompt(name, tuple(messages), *others) for name, messages, *others in rows]


class _Sampler:
    """Reads batches, chooses reward models, samples, and draws pairs."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self._policy = config, build_policy(config)
        self._generator = build_generator(config.generation, self._policy)
        self._embedder = build_embedder(config.context, self._policy)
        self._contexts = build_contexts(config, dim=self._embedder.context_dim)
        self._selector = build_selector(config, self._contexts)
        self._moments = self._contexts.state_dict()

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for step, prompts in _read_prompts(row["part"], row["steps"], self._config.training.batch_size):
            yield {"work": self._sampled(row["part"], step, prompts)}

    def _sampled(self, part: Part, step: int, prompts: Sequence[Prompt]) -> _Work:
        config = self._config
        prompts = list(fit_prompts(config, self._policy, prompts, config.generation.max_new_tokens).prompts)
        self._contexts.load_state_dict(self._moments)
        contexts_MD = prepare_contexts(self._contexts, config, finite(self._embedder.embed(prompts)))
        selection = self._selector.select(contexts_MD)
        self._selector.expire(selection.id)
        if not np.array_equal(selection.weights_MK, selection.probabilities_MK):
            raise ConfigError("the selector draws at random, so a choice depends on those before it; use --shard")
        at = [address(prompt) for prompt in prompts]
        responses = sample_at(self._generator, config, prompts, at)
        texts = [[response.text for response in of_prompt] for of_prompt in responses]
        num_arms = len(config.rewards.models)
        return _Work(
            part,
            step,
            prompts,
            selection,
            texts,
            draw_candidates(config, responses, at),
            [np.full((num_arms, len(of_prompt)), np.nan) for of_prompt in texts],
        )


class _Scorer:
    """Scores with one reward model the prompts that chose it."""

    def __init__(self, config: RunConfig, arm: int) -> None:
        self._pool, self._arm = build_pool(config), arm

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        work = row["work"]
        weights_BK = work.selection.weights_BK(len(work.prompts))
        chosen, needed = np.flatnonzero(weights_BK[:, self._arm]).tolist(), work.candidates.needed()
        asked = [[work.texts[prompt][index] for index in needed[prompt]] for prompt in chosen]
        name = self._pool.names[self._arm]
        before = self._pool.usage()[name]
        scores = self._pool.score(self._arm, [work.prompts[prompt] for prompt in chosen], asked)
        for prompt, scores_N in zip(chosen, scores, strict=True):
            work.scores_BKN[prompt][self._arm, needed[prompt]] = scores_N
        after = self._pool.usage()[name]
        work.usage[name] = Counter({key: count - before[key] for key, count in after.items()})
        return {"work": work}


def _write(row: dict[str, Any], *, config: RunConfig, filter_pairs: PairFilter) -> dict[str, Any]:
    """Pair and write a batch; the same file whenever and wherever it is done."""
    work: _Work = row["work"]
    names = [model.name for model in config.rewards.models]
    oriented = orient(config, work.candidates, work.scores_BKN, work.selection, RunningSpreads(len(names)))
    batch = Batch(0, work.step, work.prompts)
    oriented = filter_pairs(batch, work.selection, oriented)
    rows = list(pair_rows(work.prompts, work.selection, work.texts, oriented, names))
    counts = count_batch(config, work.prompts, work.candidates, oriented, rows)
    counts.usage = work.usage
    work.part.write_batch(work.step, rows, {**counts.as_record(), "state": None})
    record = shown(batch, work.selection, names, len(rows), {})
    return {"done": _Done(work.part.name, work.step, record)}

"""Prompts from configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from laser.config import schema
from laser.config.data import Data, EmbeddedData, HubData, JsonlData, RowsBase, TaskData
from laser.core.types import Prompt
from laser.data.embedded import generate
from laser.data.files import Census, Fields, load_file
from laser.data.hub import load_hub
from laser.data.split import Splits, split, split_pools
from laser.data.task import Classify, Selection, load_task
from laser.data.tasks import find_task
from laser.evaluation.answers import check_type


def build_splits(config: schema.RunConfig) -> Splits:
    """Load the prompts and split them."""
    sizes = config.split
    match config.data:
        case EmbeddedData(categories=categories):
            wanted = (sizes.train or 256) + sizes.dev + sizes.test
            prompts = generate(wanted, categories=categories, seed=config.seed)
            return split(prompts, train=sizes.train, dev=sizes.dev, test=sizes.test, seed=config.seed)
        case JsonlData() as data:
            fields = prompt_fields(data)
            files = (("dev", data.dev), ("test", data.test))
            census = Census(fields)
            given = {name: load_file(path, fields, census) for name, path in files if path is not None}
            train = load_file(data.train, fields, census)
            census.check()
            return _splits(train, given, config)
        case HubData() as data:
            fields = prompt_fields(data)
            census = Census(fields)
            read = partial(
                load_hub, data.name, fields=fields, config=data.config, revision=data.revision, census=census
            )
            named = (("dev", data.dev_split), ("test", data.test_split))
            given = {name: read(chosen) for name, chosen in named if chosen is not None}
            train = read(data.train_split)
            census.check()
            return _splits(train, given, config)
        case TaskData() as data:
            pools = load_task(find_task(data.name), task_selection(data, config.seed)).pools
            return split_pools(
                pools, train=sizes.train, dev=sizes.dev, test=sizes.test, shrink=sizes.shrink, seed=config.seed
            )


def task_selection(data: TaskData, seed: int) -> Selection:
    """Which of a task's prompts are read; the prompt classifier is loaded when a prompt first needs it."""
    return Selection(
        path=Path(data.path) if data.path is not None else None,
        revision=data.revision,
        categories=data.categories or (),
        category_field=data.category_field,
        classify=_classifier(data.classifier) if data.classifier is not None else None,
        template=data.template,
        answer_type=data.answer_type,
        limit=data.limit,
        max_rows=data.max_rows,
        seed=seed,
    )


def _classifier(source: str) -> Classify:
    @cache
    def load() -> Classify:
        from laser.lm.labels import PromptLabels

        return PromptLabels(source)

    return lambda texts: load()(texts)


def prompt_fields(data: Data) -> Fields:
    """Which fields of a row hold what; the defaults for data without rows of the user's."""
    if not isinstance(data, RowsBase):
        return Fields()
    answer_type = None if data.answer_type == "auto" else data.answer_type
    return Fields(data.prompt_field, data.answer_field, data.category_field, data.template, answer_type, check_type)


def _splits(train: Sequence[Prompt], given: Mapping[str, Sequence[Prompt]], config: schema.RunConfig) -> Splits:
    """Split off dev and test prompts that have no file; cut given splits to the configured size."""
    sizes = config.split
    rest = split(
        train,
        train=sizes.train,
        dev=0 if "dev" in given else sizes.dev,
        test=0 if "test" in given else sizes.test,
        seed=config.seed,
        shrink=sizes.shrink,
    )
    return Splits(
        train=rest.train,
        dev=given["dev"][: sizes.dev] if "dev" in given else rest.dev,
        test=given["test"][: sizes.test] if "test" in given else rest.test,
    )

"""How a reward function is called, by its signature: as laser, TRL, ms-swift or OpenRLHF call theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter
from typing import Any

from transformers import TrainerState

from laser.core.errors import RewardModelError
from laser.core.types import Prompt
from laser.rewards.base import TrainingStep

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_GOLD = ("answer", "solution", "ground_truth", "label", "labels", "target")
"""What reward functions of other trainers call the gold answer, where the data has no column of that name."""

_RESERVED = ("prompts", "responses", "completions", "queries")

_UNKNOWN = ("completion_ids", "environments")  # TRL's trainer has them, a pool of reward models has not


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reward function is called with: flat lists of equal length, and the step of the training."""

    prompts: list[Prompt]
    responses: list[str]
    at: TrainingStep


Call = Callable[[Batch], Any]


def calling(function: Callable[..., Any], subject: str) -> Call:
    """Return what calls a reward function with a batch, as its signature says.

    - ``completions``: TRL's and ms-swift's, all by keyword. `prompts` and `completions` are lists of messages where the
      data gives the prompt as messages, else text; a class with ``__call__``, as in ms-swift, always gets text.
    - ``queries``: OpenRLHF's, all by keyword; a query is the prompt's text followed by the response.
    - else ``(prompts, responses)``: laser's own, with `Prompt` records.

    Each also gets, by keyword, what else it names: `step` and `iteration` as in ``steps.jsonl``, TRL's `trainer_state`,
    and columns of the data, one value a response. A function with ``**kwargs`` gets every column.

    Args:
        function: The function, or an object with ``__call__``.
        subject: What error messages call it.

    Raises:
        RewardModelError: The signature is none of these.
    """
    parameters = _parameters(function)
    unknown = next((name for name in _UNKNOWN if name in parameters and _is_required(parameters[name])), None)
    if unknown is not None:
        raise RewardModelError(f"{subject} needs {unknown}, which laser does not have; remove that parameter")
    positional = [name for name, parameter in parameters.items() if parameter.kind in _POSITIONAL]
    by_position = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters.values())
    by_keyword = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    only_keywords = by_keyword and not positional and not by_position and not {"responses", "queries"} & set(parameters)
    if "completions" in parameters or only_keywords:
        with_messages = inspect.isroutine(inspect.unwrap(function)) or isinstance(function, partial)
        return lambda batch: function(**_keywords(parameters, _as_trl(batch, with_messages), batch, subject))
    if "queries" in parameters:
        return lambda batch: _rewards_of(function(**_keywords(parameters, _as_openrlhf(batch), batch, subject)))
    if {"prompts", "responses"} <= parameters.keys() and positional[:2] != ["prompts", "responses"]:
        return lambda batch: function(**_keywords(parameters, _as_laser(batch), batch, subject))
    if len(positional) < 2 and not by_position:
        shown = f"({', '.join(parameters)})"
        raise RewardModelError(
            f"{subject} has the parameters {shown}; write (prompts, responses), or (completions, **kwargs) as for TRL"
        )
    rest = {name: parameter for name, parameter in parameters.items() if name not in positional[:2]}
    return lambda batch: function(batch.prompts, batch.responses, **_keywords(rest, {}, batch, subject))


def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters, or those of laser's own contract where a compiled function does not say."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {name: Parameter(name, Parameter.POSITIONAL_ONLY) for name in ("prompts", "responses")}


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind in (*_POSITIONAL, Parameter.KEYWORD_ONLY)


def _as_trl(batch: Batch, with_messages: bool) -> dict[str, Any]:
    rows = zip(batch.prompts, batch.responses, strict=True)
    if not with_messages:
        return {
            "completions": list(batch.responses),
            "prompts": [prompt.text for prompt in batch.prompts],
            "messages": [[dict(message) for message in prompt.messages] for prompt in batch.prompts],
        }
    return {
        "completions": [
            [{"role": "assistant", "content": text}] if prompt.conversational else text for prompt, text in rows
        ],
        "prompts": [
            [dict(message) for message in prompt.messages] if prompt.conversational else prompt.text
            for prompt in batch.prompts
        ],
    }


def _as_openrlhf(batch: Batch) -> dict[str, Any]:
    texts = [prompt.text for prompt in batch.prompts]
    return {
        "queries": [text + response for text, response in zip(texts, batch.responses, strict=True)],
        "prompts": texts,
    }


def _as_laser(batch: Batch) -> dict[str, Any]:
    return {"prompts": batch.prompts, "responses": batch.responses}


def _rewards_of(returned: Any) -> Any:
    """OpenRLHF's functions may return a dict with what to log next to the rewards."""
    return returned["rewards"] if isinstance(returned, Mapping) and "rewards" in returned else returned


def _keywords(
    parameters: Mapping[str, Parameter], given: Mapping[str, Any], batch: Batch, subject: str
) -> dict[str, Any]:
    """What a function takes by keyword: what is given, the step, and columns of the data.

    Raises:
        RewardModelError: It needs a column that the data does not have.
    """
    columns = _columns(batch.prompts)
    state = TrainerState(global_step=batch.at.num_batches, max_steps=batch.at.last or 0)
    known = {
        **{name: columns["answer"] for name in _GOLD if "answer" in columns},
        **columns,
        "log_metric": _ignored,
        "log_extra": _ignored,
        "step": batch.at.step,
        "iteration": batch.at.iteration,
        "trainer_state": state,
        **given,
    }
    named = [name for name, parameter in parameters.items() if parameter.kind in (*_POSITIONAL, Parameter.KEYWORD_ONLY)]
    missing = [name for name in named if name not in known and _is_required(parameters[name])]
    if missing:
        raise RewardModelError(
            f"{subject} needs {missing[0]!r}, which is not a column of the data (it has {', '.join(columns)}); rename "
            "the parameter or give it a default"
        )
    taken = {name: known[name] for name in named if name in known}
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        taken = {**columns, "trainer_state": state, **given, **taken}
    return taken


def _columns(prompts: Sequence[Prompt]) -> dict[str, list[Any]]:
    """The data's columns, one value a prompt: metadata, category and, where there is one, the gold answer."""
    names = dict.fromkeys(name for prompt in prompts for name in prompt.metadata if name not in _RESERVED)
    columns: dict[str, list[Any]] = {name: [prompt.metadata.get(name) for prompt in prompts] for name in names}
    columns.setdefault("category", [prompt.category for prompt in prompts])
    if any(prompt.answer is not None for prompt in prompts):
        columns.setdefault("answer", [prompt.answer for prompt in prompts])
    return columns


def _ignored(*_: Any, **__: Any) -> None:
    """TRL's hooks for logging; laser logs scores itself."""

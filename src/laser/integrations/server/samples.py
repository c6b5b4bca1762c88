"""What a trainer sends: requests in the formats of OpenRLHF, slime and laser, read as samples to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.data.conversations import ASKING, brief, kind_of, read_messages, read_text
from laser.data.gold import read_gold
from laser.integrations.server.templated import response_in, turns_of, without_end
from laser.router.rows import key_of

Format = Literal["openrlhf", "slime", "scores"]


class RequestError(Exception):
    """A request that cannot be answered: a sentence for its sender.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Learning(StrEnum):
    """When the group of a sample is learned from."""

    auto = "auto"  # once the group is complete
    later = "later"  # when /learn names it
    never = "never"  # it belongs to an evaluation


@dataclass(frozen=True, slots=True)
class Sample:
    """One response of a policy.

    Attributes:
        prompt: The prompt as reward models read it, with gold answer, category and further columns.
        response: The response as text.
        step: The trainer's step; None where it sends none.
        group: The trainer's name for the samples of a prompt; None where it sends none.
        id: The trainer's name for this sample, equal in a retry; None where it sends none.
        learning: When its group is learned from.
    """

    prompt: Prompt
    response: str
    step: int | None = None
    group: str | None = None
    id: str | None = None
    learning: Learning = Learning.auto

    @property
    def key(self) -> str:
        """What the samples of a group have in common."""
        if self.step is None and self.group is not None:
            return f"group:{self.group}"
        return f"{self.learning == Learning.never}:{self.step}:{self.prompt.id}"


def read_request(body: Any) -> tuple[Format, list[Sample]]:
    """The format of a request and its samples.

    Raises:
        RequestError: It has none of the formats, or a field that cannot be used; names the field.
    """
    if not isinstance(body, Mapping):
        raise RequestError(f"the request is {kind_of(body)}; send a JSON object")
    try:
        if "query" in body:
            return "openrlhf", _from_openrlhf(body)
        if "response" in body:
            return "slime", [_from_slime(body)]
        if "responses" in body:
            return "scores", _from_scores(body)
    except DataError as error:
        raise RequestError(str(error)) from error
    raise RequestError(
        f"the request has the fields {', '.join(map(str, body))[:200] or '(none)'}; send query and prompts (OpenRLHF), "
        "prompt and response (slime), or prompts and responses"
    )


def _from_openrlhf(body: Mapping[str, Any]) -> list[Sample]:
    """``{"query", "prompts", "labels"}``: a query is the text of a prompt and its response; a label may be empty.

    laser-client adds ``ids``.
    """
    queries = _list(body, "query")
    prompts = _matching(body, "prompts", queries, "queries")
    labels = _matching(body, "labels", queries, "queries", default=None)
    ids = _matching(body, "ids", queries, "queries", default=None)
    samples = []
    for row, (query, prompt, label, id) in enumerate(zip(queries, prompts, labels, ids, strict=True)):
        whole, text = _text(f"query[{row}]", query), _text(f"prompts[{row}]", prompt)
        response = response_in(whole, text)
        if response is None:
            raise RequestError(
                f"query[{row}] does not begin with prompts[{row}]; send the prompt and its response as one text"
            )
        read = make_prompt(f"prompts[{row}]", text, gold=label)
        samples.append(Sample(read, without_end(response), id=_name(f"ids[{row}]", id)))
    return samples


def _from_slime(body: Mapping[str, Any]) -> Sample:
    """``{"prompt", "response", "label"}``."""
    if "prompt" not in body:
        raise RequestError("the request has a response without a prompt; send both")
    prompt = make_prompt("prompt", body["prompt"], gold=body.get("label"))
    return Sample(prompt, without_end(_text("response", body["response"])))


def _from_scores(body: Mapping[str, Any]) -> list[Sample]:
    """``{"prompts", "responses"}`` and, where the sender knows them, ``labels``, ``categories``, ``columns`` (lists),
    ``groups``, ``ids`` (lists), ``step`` and ``learn`` (one for the request).
    """
    responses = _list(body, "responses")
    prompts = _matching(body, "prompts", responses, "responses")
    optional = {
        name: _matching(body, name, responses, "responses", default=None)
        for name in ("labels", "categories", "columns", "groups", "ids")
    }
    step, learning = _step(body.get("step")), _learning(body.get("learn"))
    samples = []
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        given = {name: values[row] for name, values in optional.items()}
        read = make_prompt(
            f"prompts[{row}]",
            prompt,
            gold=given["labels"],
            category=given["categories"],
            columns=given["columns"],
        )
        text = _text(f"responses[{row}]", response)
        group, name = _name(f"groups[{row}]", given["groups"]), _name(f"ids[{row}]", given["ids"])
        samples.append(Sample(read, text, step=step, group=group, id=name, learning=learning))
    return samples


def make_prompt(
    where: str,
    value: Any,
    *,
    gold: Any = None,
    category: Any = None,
    columns: Any = None,
) -> Prompt:
    """A prompt whose id is a hash of its messages.

    Args:
        where: Its place in the request, for error messages.
        value: Text, which may be rendered by a chat template, or messages.
        gold: The gold answer, several, or None.
        category: The name of its category; None: "default".
        columns: Further fields for reward functions that name them.

    Raises:
        RequestError: It is empty, or the last message is the assistant's.
        DataError: It is something else.
    """
    if value is None:
        raise RequestError(f"{where} is null, so there is a response without a prompt; send both")
    rendered = turns_of(value) if isinstance(value, str) else None
    messages = read_messages(where, value if rendered is None else rendered)
    if not messages[-1]["content"].strip():
        raise RequestError(f"{where} is empty; send the prompt of each response")
    if messages[-1]["role"] not in ASKING:
        raise RequestError(f"{where} ends with a message of the assistant; end it with the user's")
    if isinstance(gold, Mapping) and "ground_truth" not in gold:
        raise RequestError(f"the label of {where} is an object; send text, a number or a list of them")
    golds = read_gold(f"the label of {where}", gold)
    if columns is not None and not isinstance(columns, Mapping):
        raise RequestError(f"the columns of {where} are {kind_of(columns)}; send an object")
    gold = {"answer": golds[0] if golds else None}  # a reward function may need the column where a row has none
    metadata = {**gold, **(columns or {}), **({"answers": list(golds)} if len(golds) > 1 else {})}
    return Prompt(
        id=key_of(messages),
        messages=tuple(messages),
        category=_name(f"the category of {where}", category) or "default",
        answer=golds[0] if golds else None,
        metadata=metadata,
        conversational=not isinstance(value, str) or rendered is not None,
    )


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer for one sample.

    Attributes:
        score: The score; None where the reward model has no opinion.
        filled: The score, or the mean of the group's scores where there is none, or 0 where the group has none.
        arm: Index of the reward model.
        name: Its name.
        probability: The probability with which it was chosen.
    """

    score: float | None
    filled: float
    arm: int
    name: str
    probability: float


def reply(format: Format, scored: Sequence[Scored]) -> Any:
    """The answer to a request in its format.

    OpenRLHF and slime need a number for each response, so they get `Scored.filled`; laser's format gives null.
    """
    match format:
        case "openrlhf":
            filled = [one.filled for one in scored]
            logs = {
                "laser_arm": [one.arm for one in scored],
                "laser_probability": [one.probability for one in scored],
                "laser_scored": [float(one.score is not None) for one in scored],
            }
            return {"rewards": filled, "scores": filled, "extra_logs": logs}
        case "slime":
            return scored[0].filled
        case "scores":
            return {
                "scores": [one.score for one in scored],
                "filled": [one.filled for one in scored],
                "arms": [one.name for one in scored],
                "probabilities": [one.probability for one in scored],
            }


@dataclass(frozen=True, slots=True)
class _Missing:
    """No default: the field must be there."""


_MISSING = _Missing()


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body[name]
    if not isinstance(value, list):
        raise RequestError(f"{name} is {kind_of(value)}; send a list")
    if not value:
        raise RequestError(f"{name} is empty; send at least one")
    return value


def _matching(
    body: Mapping[str, Any], name: str, others: Sequence[Any], called: str, default: Any = _MISSING
) -> list[Any]:
    """A list as long as another one; where the field is absent or null, the default for each."""
    if body.get(name) is None:
        if default is _MISSING:
            raise RequestError(f"the request has {called} without {name}; send one of {name} for each")
        return [default] * len(others)
    values = _list(body, name)
    if len(values) != len(others):
        raise RequestError(f"{name} has {len(values)} entries for {len(others)} {called}; send one each")
    return values


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{where} is {kind_of(value)}; send text")
    return read_text(where, value)


def _name(where: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value):
        raise RequestError(f"{where} is {brief(value)}; send text or a whole number")
    return read_text(where, value)


def _step(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
        raise RequestError(f"step is {brief(value)}; send the trainer's step, a whole number from 0")
    return value


def _learning(value: Any) -> Learning:
    try:
        return Learning.auto if value is None else Learning(value)
    except ValueError:
        raise RequestError(f"learn is {brief(value)}; send auto, later or never") from None

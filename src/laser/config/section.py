"""What every section of the configuration is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from laser.core.addresses import check_address, check_path

IN_SECTION: Final = "in_section"
"""Type of a validation error that concerns a whole section, whose place the message should name."""


class Section(BaseModel):
    """Base of every section: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, data: Any) -> Any:
        """The data, with "none" where the command line's ``none`` (no value) means one of a field's choices.

        Truth values that pydantic alone would read as the numbers 1 and 0 are refused.
        """
        if not isinstance(data, dict):
            return data
        for name, field in cls.model_fields.items():
            kinds = _kinds(field.annotation) if isinstance(data.get(name), bool) else set()
            if kinds & {int, float} and bool not in kinds:
                raise PydanticCustomError(IN_SECTION, f"{name} is {str(data[name]).lower()}; write a number")
        chosen = {
            name: "none"
            for name, field in cls.model_fields.items()
            if name in data and data[name] is None and _has_none(field.annotation)
        }
        return {**data, **chosen} if chosen else data


def _kinds(annotation: Any) -> set[Any]:
    """The types of a union, or the one type."""
    return set().union(*map(_kinds, get_args(annotation))) if get_args(annotation) else {annotation}


def _has_none(annotation: Any) -> bool:
    """Whether "none" is one of the values of a Literal, or of a Literal in a union."""
    return any("none" in (member, *get_args(member)) for member in get_args(annotation))


@dataclass(frozen=True, slots=True)
class Local:
    """Mark of a field that names something on this machine; `laser.config.paths` makes it absolute."""

    what: Literal["path", "source", "function"]


PositiveInt = Annotated[int, Field(ge=1)]
LocalPath = Annotated[str, Local("path")]
Source = Annotated[str, Local("source")]
"""A folder or file if there is one of that name, else an id on the hub or ``package:NAME``."""
Function = Annotated[str, Local("function")]
"""``path.py:function``."""
Factory = Annotated[
    Function, Field(pattern=r"^.+:[A-Za-z_]\w*$", description="'path.py:function'; docs/extend.md has its arguments.")
]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
Address = Annotated[str, AfterValidator(check_address)]
ServerPath = Annotated[str | None, AfterValidator(lambda path: path if path is None else check_path(path))]

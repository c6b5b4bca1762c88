"""What every section of the configuration is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from laser.core.addresses import check_address, check_path

IN_SECTION: Final = "in_section"
"""Type of a validation error that concerns a whole section, whose place the message should name."""


class Section(BaseModel):
    """Base of every section: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _none_where_it_is_a_choice(cls, data: Any) -> Any:
        """The data, with "none" where the command line's ``none`` (no value) means one of a field's choices."""
        if not isinstance(data, dict):
            return data
        chosen = {
            name: "none"
            for name, field in cls.model_fields.items()
            if name in data and data[name] is None and _has_none(field.annotation)
        }
        return {**data, **chosen} if chosen else data


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

"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from laser.addresses import check_address, check_path


class Section(BaseModel):
    """Base of every section: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


PositiveInt = Annotated[int, Field(ge=1)]
Factory = Annotated[
    str, Field(pattern=r"^.+:[A-Za-z_]\w*$", description="'path.py:function'; docs/extend.md has what it is given.")
]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
Address = Annotated[str, AfterValidator(check_address)]
ServerPath = Annotated[str | None, AfterValidator(lambda path: path if path is None else check_path(path))]

"""Where prompts come from: files, data sets of the hub, tasks, the embedded questions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from laser.config.section import LocalPath, PositiveInt, Section, Source
from laser.core.errors import ConfigError
from laser.data.tasks import AnswerType, find_task

_ANSWER_TYPE = (
    "Type of the answers: text, number, yes_no, option (its letter) or math; auto: as the row says, else inferred from "
    "the gold answers."
)


_FILE = "JSON Lines, a JSON list, CSV or TSV with a header, Parquet, or a folder that save_to_disk wrote"


class RowsBase(Section):
    """Which fields of a row mean what."""

    prompt_field: str = Field(
        "prompt",
        description="Field with the prompt: text, or chat messages; dots lead into objects. Rows without `prompt` may "
        "have `messages`, `conversations`, or `instruction`.",
    )
    answer_field: str | None = Field(
        "auto",
        description="Field with the gold answer; dots lead into objects. auto: `answer`, `reward_model.ground_truth` "
        "or `answers`, if there is one; null: no gold answers.",
    )
    category_field: str | None = Field(
        "auto", description="Field with the category; auto: `category`, if there is one; null: no categories."
    )
    template: str | None = Field(None, description="Text around the user's last message, with {prompt} where it goes.")
    answer_type: AnswerType = Field("auto", description=_ANSWER_TYPE)


class JsonlData(RowsBase):
    """Prompts from local files."""

    type: Literal["file"] = "file"
    train: LocalPath = Field(description=f"Path of the training prompts: {_FILE}.")
    dev: LocalPath | None = Field(None, description="Path of the development prompts; None: split off `train`.")
    test: LocalPath | None = Field(None, description="Path of the test prompts; None: split off `train`.")


class HubData(RowsBase):
    """Prompts from a Hugging Face data set."""

    type: Literal["hub"] = "hub"
    name: Source = Field(description="Data set id on the hub, or a local folder of the same layout.")
    config: str | None = Field(None, description="Configuration (subset) of the data set.")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    train_split: str = Field("train", description="Split with the training prompts.")
    dev_split: str | None = Field(None, description="Split with the development prompts; None: split off training.")
    test_split: str | None = Field(None, description="Split with the test prompts; None: split off training.")


class TaskData(Section):
    """Prompts of a task; `laser tasks` lists all tasks, and docs/tasks.md describes how each is read."""

    type: Literal["task"] = "task"
    name: str = Field(
        description="Name of the task; it also gives the defaults of the fields below, of split and of evaluation."
    )
    path: LocalPath | None = Field(None, description="The original files, or a folder with them; None: the hub.")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    categories: tuple[str, ...] | None = Field(None, description="Categories to keep; None: all.")
    category_field: str | None = Field(None, description="Column with the category; None: the task's.")
    classifier: Source | None = Field(
        None, description="Prompt classifier (hub id or folder) for a task without categories."
    )
    template: str | None = Field(
        None, description="Text around the prompt, with {input} and {context}; None: the task's."
    )
    answer_type: AnswerType = Field("auto", description=_ANSWER_TYPE)
    limit: PositiveInt | None = Field(
        None,
        description="Largest number of prompts per category and original split, drawn by a seeded hash; None: all.",
    )
    max_rows: PositiveInt | None = Field(None, description="Read only the first rows of each original split.")

    @model_validator(mode="after")
    def _known(self) -> TaskData:
        try:
            find_task(self.name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.template is not None and "{input}" not in self.template and "{context}" not in self.template:
            raise ValueError("data.template has neither {input} nor {context}; put them where question and document go")
        return self


class EmbeddedData(Section):
    """Generated prompts with gold answers, seeded."""

    type: Literal["embedded"] = "embedded"
    categories: tuple[str, ...] | None = Field(None, description="Categories to generate; None: all of them.")


Data = Annotated[JsonlData | HubData | TaskData | EmbeddedData, Field(discriminator="type")]

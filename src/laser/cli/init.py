"""``laser init``: a folder to start from: the demo, or laser inside another trainer."""

from __future__ import annotations

import shutil
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from laser.cli.terminal import say
from laser.core.errors import RunDirectoryError
from laser.core.files import in_words

_NUM_PROMPTS = 288
_DATA = """# Yours: one JSON object a line with a prompt, and an answer and a category where you have them.
[data]
type = "file"
train = "prompts.jsonl"
"""


class Trainer(StrEnum):
    """Trainers that have a starting point in laser/integrations/starts."""

    OPENRLHF = "openrlhf"
    TRL = "trl"
    VERL = "verl"


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to create.", show_default=False)],
    trainer: Annotated[
        Trainer | None, typer.Option("--for", help="Choose reward models inside this trainer.", show_default=False)
    ] = None,
) -> None:
    """Write a starting point to edit: prompts.jsonl, rewards.py and run.toml, ready to train.

    Example: laser init my-run && laser train my-run/run.toml
    """
    from laser.config import demo_config_path

    with in_words("write to", folder, "choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunDirectoryError(f"{folder} is not empty; choose another folder")
        if trainer is not None:
            _write_start(trainer, folder)
            return
        demo = demo_config_path()
        shutil.copyfile(demo.with_name("rewards.py"), folder / "rewards.py")
        (folder / "prompts.jsonl").write_text(_prompt_lines(), encoding="utf-8")
        config = demo.read_text(encoding="utf-8").replace('[data]\ntype = "embedded"\n', _DATA)
        (folder / "run.toml").write_text(config, encoding="utf-8")
    say(f"wrote {folder}/prompts.jsonl, {folder}/rewards.py and {folder}/run.toml")
    say(f"next: laser train {folder}/run.toml")


def _write_start(trainer: Trainer, folder: Path) -> None:
    """Copy the reward functions and the files of a trainer's starting point, and write prompts."""
    starts = Path(str(resources.files("laser.integrations") / "starts"))
    own = (path for path in (starts / trainer.value).iterdir() if path.is_file())
    files = sorted([*own, starts / "rewards.py"], key=lambda path: path.name)
    for path in files:
        shutil.copyfile(path, folder / path.name)
    (folder / "prompts.jsonl").write_text(_prompt_lines(), encoding="utf-8")
    say(f"wrote {folder}/prompts.jsonl, {', '.join(f'{folder}/{path.name}' for path in files)}")
    say("next: read docs/integrations.md")


def _prompt_lines() -> str:
    import json

    from laser.data.embedded import generate

    rows = (
        {"prompt": list(prompt.messages), "answer": prompt.answer, "category": prompt.category}
        for prompt in generate(_NUM_PROMPTS)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)

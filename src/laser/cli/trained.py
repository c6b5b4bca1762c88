"""Commands for what a run has trained: ``laser eval`` and ``laser chat``. Light to import, as all of the help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_SET = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one field. Repeatable.")]
_TRUST = Annotated[bool, typer.Option("--trust", help="Do what the configuration of a run from elsewhere says.")]


class _Split(StrEnum):
    dev = "dev"
    test = "test"


def evaluate(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_CONFIG...",
            help="Run directories, or TOML files for their untrained model; with --judge, files of responses too.",
            show_default=False,
        ),
    ],
    split: Annotated[_Split, typer.Option(help="Prompts of the first one's data to ask.")] = _Split.dev,
    base: Annotated[bool, typer.Option("--base", help="Compare with the untrained model of the first.")] = False,
    overrides: _SET = None,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON file of the results; responses are kept beside it.", show_default=False),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_URL",
            help="Win rates against the first, by a judge: its TOML file or address.",
            show_default=False,
        ),
    ] = None,
    judge_overrides: Annotated[
        list[str] | None,
        typer.Option("--judge-set", metavar="KEY=VALUE", help="One of the judge's fields, such as model. Repeatable."),
    ] = None,
    difficulty: Annotated[
        Path | None,
        typer.Option(help="With --judge: JSON Lines of id and difficulty of the prompts.", show_default=False),
    ] = None,
    trust: _TRUST = False,
) -> None:
    """Measure trained and untrained policies on held-out prompts, against gold answers or by a judge.

    Example: laser eval runs/mine --base --split test --out results.json
    """
    from laser.cli.eval import EvalOptions, run_eval, run_judge

    options = EvalOptions(targets, split.value, base, overrides or [], out, trust)
    if judge is None:
        run_eval(options, judge_overrides or [], difficulty)
    else:
        run_judge(options, judge, judge_overrides or [], difficulty)


def chat(
    run: Annotated[Path, typer.Argument(help="Run directory.", show_default=False)],
    once: Annotated[
        str | None, typer.Option(help="Answer this and end; - reads it from standard input.", show_default=False)
    ] = None,
    best_of: Annotated[
        int, typer.Option(min=1, help="Replies to sample; the selected reward model picks one.", show_default=False)
    ] = 1,
    reward_model: Annotated[
        str | None, typer.Option(help="Reward model that picks, whatever the selector says.", show_default=False)
    ] = None,
    overrides: _SET = None,
    trust: _TRUST = False,
) -> None:
    """Talk to the policy of a run; with --best-of, see which reward model picked the reply, and why.

    Example: laser chat runs/mine --best-of 4 --set generation.temperature=0.7
    """
    from laser.cli.chat import run_chat

    run_chat(run, once=once, best_of=best_of, reward_model=reward_model, overrides=overrides or [], trust=trust)

"""The command line. Heavy imports live inside the commands, so that ``laser --help`` answers at once."""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from laser.cli import looking, tasks, trained
from laser.core.errors import LaserError
from laser.parallel.ranks import tells

app = typer.Typer(
    name="laser",
    help="Train language models with several reward models, learning while training which one to trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from laser.core.version import version

        typer.echo(f"laser {version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train language models with several reward models, learning while training which one to trust."""


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="TOML configuration; without one, the demo's.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one field, e.g. training.iterations=3. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory to create; default: a new folder under runs/.", show_default=False),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run directory to continue after an interruption.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and a plan; train nothing.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="With --resume: do what a run directory from elsewhere says it does.")
    ] = False,
    changed_rewards: Annotated[
        bool,
        typer.Option(
            "--changed-rewards", help="With --resume: go on although reward models changed, e.g. a mended function."
        ),
    ] = False,
    machine: Annotated[
        str | None,
        typer.Option(help="With --dry-run: whose time to estimate, here, a100-80gb, h100-80gb or h200-141gb."),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: devices of that kind, one process each; default: 1.")
    ] = None,
) -> None:
    """Train a policy with a pool of reward models (Algorithm 1 of arXiv 2410.01735).

    Example: laser train run.toml --set training.iterations=3 --out runs/first
    """
    from laser.cli.train import run_training

    run_training(
        config,
        overrides or [],
        out=out,
        resume_from=resume,
        dry_run=dry_run,
        trust=trust,
        changed_rewards=changed_rewards,
        machine=machine,
        devices=devices,
    )


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Argument(help="TOML configuration whose policy is served.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one field. Repeatable.")
    ] = None,
    python: Annotated[str, typer.Option(help="Interpreter of the environment that vLLM is installed in.")] = "python3",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    show: Annotated[bool, typer.Option("--print", help="Print the command instead of running it.")] = False,
) -> None:
    """Start a vLLM server that samples for runs with generation.engine = "vllm".

    Example: laser serve run.toml --python ~/vllm/bin/python
    """
    from laser.cli.serve import run_server

    run_server(config, overrides or [], python, host, port, show)


app.command()(looking.report)
app.command()(looking.watch)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder to create.", show_default=False)]) -> None:
    """Write a starting point of your own: prompts.jsonl, rewards.py and run.toml, ready to train and to edit.

    Example: laser init my-run && laser train my-run/run.toml
    """
    from laser.cli.init import write_starting_point

    write_starting_point(folder)


@app.command("train-classifier")
def train_classifier(
    pairs: Annotated[
        Path,
        typer.Argument(help="Pairs (.jsonl or .parquet) of prompt, chosen, rejected.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder to create.", show_default=False)],
    config: Annotated[
        Path | None, typer.Option(help="TOML configuration whose policy and pool it is for; without one, the demo's.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one field. Repeatable.")
    ] = None,
    standardize: Annotated[
        bool, typer.Option("--standardize", help="Compare score differences in each model's own deviations.")
    ] = False,
) -> None:
    """Learn offline which reward model judges which query best: the classifier baseline, and BayesianRouter's prior.

    Example: laser train-classifier pairs.jsonl --config run.toml --out router, then selector = {type = "classifier",
    path = "router"}
    """
    from laser.cli.train_classifier import run_train_classifier

    run_train_classifier(pairs, out, config, overrides or [], standardize=standardize)


class _Format(StrEnum):
    jsonl = "jsonl"
    parquet = "parquet"


_CONFIG = Annotated[
    Path | None, typer.Argument(help="TOML configuration; without one, the demo's.", show_default=False)
]
_SET = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one field. Repeatable.")]


@app.command()
def label(
    config: _CONFIG = None,
    overrides: _SET = None,
    out: Annotated[Path, typer.Option(help="Folder of the data set; an interrupted one is continued.")] = Path("pairs"),
    format: Annotated[_Format, typer.Option(help="JSON Lines or Parquet.")] = _Format.jsonl,
) -> None:
    """Write a preference data set for offline training: sample, select, score, pair; nothing is trained.

    Example: laser label run.toml --out pairs, then datasets.load_dataset("json", data_files="pairs/part-*")
    """
    from laser.cli.label import run_label

    run_label(config, overrides or [], out, format.value)


@app.command("best-of-n")
def best_of_n(
    config: _CONFIG = None,
    overrides: _SET = None,
    out: Annotated[Path, typer.Option(help="Folder of responses, scores and results.")] = Path("runs/best-of-n"),
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="A method, as the table names them. Repeatable; default: all of them."),
    ] = None,
    router: Annotated[
        Path | None,
        typer.Option(
            help="Folder that laser train-classifier wrote, for the method classifier; default: the selector's own.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Learn which reward model to rerank n responses with, the policy untouched, and compare with every baseline.

    Example: laser best-of-n run.toml --set split.test=100 --set generation.num_responses=8 --out runs/bon
    """
    from laser.cli.best_of_n import run_best_of_n

    run_best_of_n(config, overrides or [], out, methods or [], router)


@app.command()
def compare(
    suite: Annotated[Path, typer.Argument(help="TOML file of methods, tasks and seeds.", show_default=False)],
    overrides: _SET = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of runs and results; default: runs/NAME.", show_default=False)
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Instead of the suite's: auto, cpu, or cuda:0,cuda:1.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time on each device.", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="method=M,task=T,seed=N", help="Only these cells and what they need. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List cells with state and cost; run nothing.")] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Write the tables of what is finished; run nothing.")
    ] = False,
) -> None:
    """Run methods x tasks x seeds where missing or interrupted, and compare them in one table with tests.

    Example: laser compare configs/lab/smoke.toml --out runs/smoke --devices cpu --workers 2
    """
    from laser.cli.compare import CompareOptions, run_compare

    code = run_compare(suite, overrides or [], CompareOptions(out, devices, workers, only or [], dry_run, tables))
    if code:
        raise typer.Exit(code)


app.command("eval")(trained.evaluate)
app.command("chat")(trained.chat)
app.add_typer(tasks.app, name="tasks")


@app.command()
def rewardbench(
    pairs: Annotated[
        list[Path],
        typer.Argument(help="Preference files (.jsonl, .parquet) of prompt, chosen, rejected.", show_default=False),
    ],
    config: Annotated[
        Path | None, typer.Option(help="TOML configuration with the pool; without one, the demo's.")
    ] = None,
    overrides: _SET = None,
    select: Annotated[bool, typer.Option("--select", help="Measure the configuration's selector too.")] = False,
    learn: Annotated[
        float, typer.Option(help="Share of the prompts the selector learns from first; the others are measured.")
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="New .json file to write the numbers into.", show_default=False)
    ] = None,
) -> None:
    """Measure how often each reward model orders labelled pairs rightly, by category, and how much they agree.

    Example: laser rewardbench pairs.jsonl --config run.toml --out bench.json
    """
    from laser.cli.rewardbench import run_rewardbench

    run_rewardbench(config, overrides or [], pairs, out, select=select, learn=learn)


@app.command()
def simulate(
    environments: Annotated[
        list[str] | None,
        typer.Option(
            "--env", help="linear, stationary, abrupt, drift, digits, wine or breast_cancer. Repeatable; default: 5."
        ),
    ] = None,
    selectors: Annotated[
        list[str] | None,
        typer.Option("--selector", help="A selector. Repeatable; default: all but neural-ucb, the slowest."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of every environment; default: 20.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=10, help="Rounds of every environment; default: 1500.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="New folder for regret.json and regret.png, by default under runs/; for replay.json, by default none.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--replay", help="Replay the logged choices of this run instead.", show_default=False),
    ] = None,
) -> None:
    """Run bandits alone, without a language model: regret in known environments, or replay of a run's choices.

    Example: laser simulate --env drift --selector linucb-1 --selector decay --seeds 5
    """
    from laser.cli.simulate import check_replay_options, run_replay, run_simulation

    if run is not None:
        check_replay_options({"--env": environments, "--seeds": seeds, "--rounds": rounds})
        run_replay(run, selectors or [], out)
    else:
        run_simulation(environments or [], selectors or [], seeds or 20, rounds or 1500, out)


lab = typer.Typer(help="The paper in a box: small real language models, every method, error bars, on a CPU.")
app.add_typer(lab, name="lab", no_args_is_help=True)
_FOLDER = Annotated[Path, typer.Option(help="The laboratory: models, questions, oracle.")]
_WORKERS = Annotated[int, typer.Option(min=1, help="Processes at a time, one thread each.")]


@lab.command("build")
def lab_build(folder: _FOLDER = Path("lab"), workers: _WORKERS = 2) -> None:
    """Train the policy and three pools of reward models from scratch, once; minutes on 2 cores.

    Example: laser lab build --folder lab
    """
    from laser.cli.lab import build

    build(folder, workers)


@lab.command("run")
def lab_run(
    folder: _FOLDER = Path("lab"),
    out: Annotated[Path, typer.Option(help="Folder of the runs; finished ones stay.")] = Path("runs/lab"),
    pools: Annotated[
        list[str] | None, typer.Option("--pool", help="mixed, inconsistent or confident. Repeatable; default: all.")
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="A method. Repeatable; default: all of them.")
    ] = None,
    studies: Annotated[
        list[str] | None,
        typer.Option(
            "--study", help="noise-0.4, inverted, rms-8, loss-dpo, ...; none: plain. Repeatable; default: none."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per method.")] = 5,
    workers: _WORKERS = 2,
) -> None:
    """Run every method of the paper's tables, and its rivals, through the whole loop; print the tables.

    Example: laser lab run --pool mixed --method laser --method random --seeds 3
    """
    from laser.cli.lab import run

    run(folder, out, pools or [], methods or [], studies or [], seeds, workers)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line: errors the user can mend are one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except LaserError as error:
        from laser.cli.terminal import say

        if tells(error):
            say(f"laser: error: {error}", error=True)
        sys.exit(2)
    except OSError as error:  # of a path given on the command line, in whatever command
        if error.filename is None:
            raise
        from laser.cli.terminal import say

        say(f"laser: error: cannot use {error.filename} ({error.strerror}); choose another path", error=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("laser: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

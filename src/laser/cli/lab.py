"""``laser lab``: build the laboratory; run its suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laser.cli.terminal import make_console
from laser.core.errors import ConfigError

if TYPE_CHECKING:
    from laser.config.suite import SuiteConfig

_STUDIES = Path("configs") / "lab" / "studies.toml"
_PLAIN = "none"

app = typer.Typer(
    help="The paper in a box: small real language models, every method, error bars, on a CPU.", no_args_is_help=True
)
_FOLDER = Annotated[Path, typer.Option(help="The laboratory: models, questions, oracle.")]
_WORKERS = Annotated[int, typer.Option(min=1, help="Processes at a time, one thread each.")]


@app.command("build")
def build(folder: _FOLDER = Path("lab"), workers: _WORKERS = 2) -> None:
    """Train the policy and three pools of reward models from scratch, once; minutes on 2 cores.

    Example: laser lab build --folder lab
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    from laser.compare.choices import load_oracle
    from laser.compare.lab.build import build_lab
    from laser.compare.lab.oracle import measure_oracle

    console = make_console()
    build_lab(folder, workers=workers, note=console.print)
    measure_oracle(folder, note=console.print)
    for pool, table in load_oracle(folder / "oracle.json").items():
        console.print(f"\n{pool}: pair accuracy on the policy's responses")
        for category, values in table.items():
            console.print(f"  {category:<11}" + "  ".join(f"{name} {value:.2f}" for name, value in values.items()))


@app.command("run")
def run(
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
    """Run rows and columns of configs/lab/studies.toml, as laser compare does.

    Example: laser lab run --pool mixed --method laser --method random --seeds 3
    """
    from laser.cli.compare import run_suite
    from laser.compare.lab.build import POOLS
    from laser.config.suite import load_suite

    if not (folder / "oracle.json").is_file():
        raise ConfigError(f"{folder} is not a laboratory; build it with: laser lab build --folder {folder}")
    columns = [
        pool if study == _PLAIN else f"{pool}+{study}" for pool in pools or POOLS for study in studies or [_PLAIN]
    ]
    chosen = {"name": "lab", "seeds": seeds, "workers": workers, "columns": columns}
    if methods:
        chosen |= {"rows": methods, "reference": "laser" if "laser" in methods else methods[0]}
    run_suite(in_folder(load_suite(_suite_file(), chosen), folder), out)


def in_folder(suite: SuiteConfig, folder: Path) -> SuiteConfig:
    """Return the laboratory's suite with every path to the laboratory replaced by `folder`."""
    home = Path(os.path.normpath(suite.base["policy"]["model"])).parent
    return type(suite).model_validate(_moved(suite.model_dump(), home, folder.resolve()))


def _suite_file() -> Path:
    """Find the laboratory's suite below the working directory, or in the repository that holds this file."""
    for root in (Path(), Path(__file__).parents[3]):
        if (root / _STUDIES).is_file():
            return root / _STUDIES
    raise ConfigError(f"{_STUDIES} does not exist here; run laser lab run in the root of laser's repository")


def _moved(value: Any, home: Path, folder: Path) -> Any:
    """Replace the folder `home` by `folder` in every absolute path of a nested value."""
    if isinstance(value, dict):
        return {key: _moved(item, home, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, home, folder) for item in value]
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    path = Path(os.path.normpath(value))
    return str(folder / path.relative_to(home)) if path.is_relative_to(home) else value

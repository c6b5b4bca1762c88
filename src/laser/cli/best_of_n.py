"""``laser best-of-n``: run and print the table."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.terminal import make_console
from laser.config import load_config
from laser.errors import ConfigError


def run_best_of_n(config_path: Path | None, overrides: list[str], out: Path, wanted: list[str]) -> None:
    """Compare methods of reranking and print what came out. Raises LaserError."""
    prepare()
    config = load_config(config_path, overrides)
    console = make_console()
    from laser.best_of_n import best_of_n, standard_methods

    methods = standard_methods(config)
    unknown = [name for name in wanted if name not in methods]
    if unknown:
        raise ConfigError(f"there is no method {unknown[0]!r}; there are {', '.join(methods)}")
    chosen = {name: methods[name] for name in wanted} if wanted else methods
    results = best_of_n(config, out, chosen, note=lambda message: console.print(escape(message)))
    categories = list(next(iter(results.values())).by_category)
    table = Table("method", config.evaluation.metric, "95% interval", *map(escape, categories), "responses scored")
    for name, result in sorted(results.items(), key=lambda item: -item[1].value):
        low, high = result.interval
        cells = (f"{result.by_category[category]:.3f}" for category in categories)
        table.add_row(escape(name), f"{result.value:.3f}", f"{low:.3f} to {high:.3f}", *cells, str(result.scored))
    console.print(table)
    console.print(f"written: {escape(str(out / 'results.json'))}")

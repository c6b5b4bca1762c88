"""``laser lab build``: train the policy and the reward models of the pools once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from laser.compare.lab.tasks import NAMES, Mixture, questions
from laser.core.seeding import stream

VERSION = 1
NUM_TRAIN, NUM_TEST = 1200, 400


@dataclass(frozen=True, slots=True)
class Recipe:
    """The training of one model."""

    mixture: Mixture
    steps: int
    seed: int
    hidden: int = 128
    layers: int = 4


def _expert(home: tuple[int, ...], others: tuple[float, float], *, steps: int, seed: int) -> Recipe:
    """Right answers in the home categories, a mixture (right, systematically wrong) in the others."""
    right = tuple(1.0 if kind in home else others[0] for kind in range(len(NAMES)))
    wrong = tuple(0.0 if kind in home else others[1] for kind in range(len(NAMES)))
    return Recipe(Mixture(right, wrong), steps, seed)


def _pool(name: str, others: tuple[float, float], mediocre: tuple[float, float], seed: int) -> dict[str, Recipe]:
    return {
        f"{name}-numbers": _expert((0, 3), others, steps=250, seed=seed),
        f"{name}-reversal": _expert((1,), others, steps=250, seed=seed + 1),
        f"{name}-sorting": _expert((2,), others, steps=250, seed=seed + 2),
        f"{name}-mediocre": _expert((), mediocre, steps=250, seed=seed + 3),
    }


RECIPES: dict[str, Recipe] = {
    "policy": Recipe(Mixture((0.65, 0.5, 0.5, 0.5), (0.2, 0.3, 0.3, 0.3)), 400, 1),
    **_pool("mixed", (0.15, 0.35), (0.4, 0.3), 10),
    **_pool("inconsistent", (0.0, 0.0), (0.25, 0.0), 20),
    **_pool("confident", (0.1, 0.9), (0.4, 0.4), 30),
}
POOLS = ("mixed", "inconsistent", "confident")


def pool_members(pool: str) -> tuple[str, ...]:
    """Return the names of a pool's reward models."""
    return tuple(name for name in RECIPES if name.startswith(f"{pool}-"))


def build_lab(folder: Path, *, workers: int, note: Callable[[str], None] = lambda _: None) -> None:
    """Train the missing models; a model built by the same recipe stays.

    Args:
        folder: The laboratory.
        workers: Models trained at a time, one thread each.
        note: Receives a line when a model is trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_data(folder)
    missing = [name for name in RECIPES if not _is_built(folder, name)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        running = {executor.submit(_train, folder, name): name for name in missing}
        for number, future in enumerate(as_completed(running), 1):
            future.result()
            note(f"{running[future]} trained ({number} of {len(missing)})")


def _train(folder: Path, name: str) -> None:
    import torch

    from laser.compare.lab.models import save_model, train_model

    torch.set_num_threads(1)
    recipe = RECIPES[name]
    model, tokenizer = train_model(
        recipe.mixture, hidden=recipe.hidden, layers=recipe.layers, steps=recipe.steps, seed=recipe.seed
    )
    temporary = folder / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    save_model(model, tokenizer, temporary)
    (temporary / "recipe.json").write_text(_recipe_text(name), encoding="utf-8")
    shutil.rmtree(folder / name, ignore_errors=True)
    temporary.rename(folder / name)


def _is_built(folder: Path, name: str) -> bool:
    recipe = folder / name / "recipe.json"
    return recipe.is_file() and recipe.read_text(encoding="utf-8") == _recipe_text(name)


def _recipe_text(name: str) -> str:
    return json.dumps({"version": VERSION, **asdict(RECIPES[name])})


def _write_data(folder: Path) -> None:
    records = questions(NUM_TRAIN + NUM_TEST, stream(0, "data", 1))
    for name, rows in (("train", records[:NUM_TRAIN]), ("test", records[NUM_TRAIN:])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")

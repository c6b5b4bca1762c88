"""A model held by several processes between them: `sharding_checks.py` in four real ones, and what is refused."""

import json

import pytest
import torch

import sharding_checks
from laser.core.errors import ModelError
from laser.lm.sharding import Sharding, layers_of
from laser.lm.sources import load_causal_lm
from laser.parallel.ranks import Alone
from processes import fork
from tiny import make_model, save_model


@pytest.mark.slow
def test_four_processes_hold_a_model_between_them(tmp_path):
    """Gradients equal to the bit however uneven the passes, failures on one process, loading, groups of processes, and
    a third of the bytes each."""
    fork(4, sharding_checks.check, tmp_path)
    embeddings_head_and_norm = 4 * (2 * 99 * 32 + 32)
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(4)]
    for case, copies in (("all", 1), ("recompute", 1), ("groups", 2)):
        whole = found[0][case]["layers"]
        held = [one[case]["held"] for one in found]
        assert sum(held) == copies * whole
        assert max(held) < copies * whole / 4 * 1.05
        assert {one[case]["whole_everywhere"] for one in found} == {embeddings_head_and_norm}


def test_a_run_of_one_process_holds_everything(tmp_path):
    path = str(save_model(tmp_path / "model"))
    model = load_causal_lm(path, device=torch.device("cpu"), dtype=torch.float32, sharding=Sharding(Alone()))
    assert all(weight.untyped_storage().nbytes() >= weight.nbytes for weight in model.parameters())


def test_layers_are_those_the_architecture_names():
    model = make_model(layers=3)
    assert layers_of(model) == list(model.model.layers)
    model._no_split_modules = None
    with pytest.raises(ModelError, match="cannot be sharded over processes"):
        layers_of(model)

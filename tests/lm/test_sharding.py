"""A model held by several processes between them: `spread_checks.py` run by three real ones, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laser.core.errors import ModelError
from laser.lm.sharding import layers_of
from laser.lm.sources import load_causal_lm
from laser.parallel.ranks import Alone
from processes import ENVIRONMENT
from tiny import make_model, save_model


@pytest.mark.slow
def test_three_processes_hold_a_model_between_them(tmp_path):
    """Gradients equal to the bit however uneven the passes, failures on one process, loading, and a third of the bytes
    each: 128 KiB of layers, plus the padding of every layer's weights to equal shares."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    program = Path(__file__).with_name("spread_checks.py")
    done = subprocess.run(
        [*launcher, program, tmp_path], env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    embeddings_head_and_norm = 4 * (2 * 99 * 32 + 32)
    for rank in range(3):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        for case in ("False", "True"):
            assert found[case]["layers"] / 3 <= found[case]["held"] < found[case]["layers"] / 3 * 1.05
            assert found[case]["whole_everywhere"] == embeddings_head_and_norm


def test_a_run_of_one_process_holds_everything(tmp_path):
    path = str(save_model(tmp_path / "model"))
    model = load_causal_lm(path, device=torch.device("cpu"), dtype=torch.float32, ranks=Alone())
    assert all(weight.untyped_storage().nbytes() >= weight.nbytes for weight in model.parameters())


def test_layers_are_those_the_architecture_names():
    model = make_model(layers=3)
    assert layers_of(model) == list(model.model.layers)
    model._no_split_modules = None
    with pytest.raises(ModelError, match="cannot be spread over processes"):
        layers_of(model)

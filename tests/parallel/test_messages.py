"""What processes exchange: every value that a run sends comes back the same, and nothing else is made from bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from laser.core.errors import LostProcessError, ModelError
from laser.core.types import Response, Selection
from laser.parallel import messages

RESPONSE = Response((5, 2**31), "a\n\u2028\x00 word", (-0.1, -float("inf")), False)
WEIGHTS = np.broadcast_to(np.array([0.25, 0.75]), (3, 2))
SELECTION = Selection(7, WEIGHTS, WEIGHTS, np.array([[np.nan, 1.0]] * 3), ((0, 1), (2, 0)))


def same(first, second):
    assert type(first) is type(second)
    if isinstance(first, np.ndarray | torch.Tensor):
        assert (first.dtype, first.shape) == (second.dtype, second.shape)
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            same(one, other)
    elif isinstance(first, Selection):
        for name in Selection.__dataclass_fields__:
            same(getattr(first, name), getattr(second, name))
    elif isinstance(first, Exception):
        assert first.args == second.args
    else:
        assert first == second


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [1, 0.1, 1e-310, float("inf"), "text", Path("/a/run")],
        ([[RESPONSE], []], None),
        SELECTION,
        [np.empty((0, 3)), np.array(3), np.array([True]), np.arange(6).reshape(2, 3).T],
        [torch.tensor([1.5, -2.0]), torch.tensor(3)],
        [({"dpo": 0.5}, 12), {("tuple", 1): [None]}],
        ([], ModelError("a sentence")),
        LostProcessError("another"),
    ],
)
def test_a_value_comes_back_the_same(value):
    same(value, messages.decode(messages.encode(value)))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [lambda: 1], ValueError("x")])
def test_other_values_are_refused(value):
    with pytest.raises(TypeError, match="processes cannot exchange a"):
        messages.encode(value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("record", "subprocess:Popen"),
        ("record", "laser.policy.policy:Policy"),
        ("record", "laser.core.files:os.system"),
        ("error", "builtins:SystemExit"),
        ("error", "laser.core.types:Response"),
    ],
)
def test_bytes_make_nothing_but_records_and_errors_of_laser(kind, name):
    content = {kind: [name, {} if kind == "record" else []]}
    structure = json.dumps(content).encode()
    with pytest.raises(TypeError, match="processes cannot exchange a"):
        messages.decode(len(structure).to_bytes(8, "little") + structure + messages.encode(None)[12:])

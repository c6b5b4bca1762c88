"""A small multi-layer perceptron in torch, with the per-example gradients that NeuralUCB needs.

Arrays go in and come out as numpy's, float64 throughout. torch computes on the CPU with one thread, so that the same
seed gives the same bits. Importing this module imports torch; `neural` and `classifier` do so only when they make a
network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from laser.core.types import FloatArray, StateDict

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of outputs (n, K) and targets (n,)."""


@dataclass(frozen=True, slots=True)
class Factors:
    """Outputs (N, K), and the gradients of their sum over K, factored by layer.

    The gradient of example n by the weights of layer l is the outer product of `inputs[l][n]` and `deltas[l][n]`, and
    by its biases `deltas[l][n]`.

    Attributes:
        outputs_NK: Outputs.
        inputs: The input of every layer, each (N, width of the layer below).
        deltas: The gradient at every layer's pre-activation, each (N, width of the layer).
    """

    outputs_NK: FloatArray
    inputs: tuple[FloatArray, ...]
    deltas: tuple[FloatArray, ...]


class MLP:
    """Linear layers with ReLU between them.

    Args:
        sizes: Widths from the input to the output.
        generator: Draws the weights (He initialization); biases start at zero.
        zero_output: Start with weights of zero in the last layer, so that all outputs are 0.
    """

    def __init__(self, sizes: Sequence[int], generator: np.random.Generator, *, zero_output: bool = False) -> None:
        self.sizes = tuple(sizes)
        weights = [generator.standard_normal((wide, narrow)) * np.sqrt(2.0 / wide) for wide, narrow in pairwise(sizes)]
        if zero_output:
            weights[-1][:] = 0.0
        self._weights = [_parameter(weight) for weight in weights]
        self._biases = [_parameter(np.zeros(width)) for width in sizes[1:]]

    def outputs(self, inputs_ND: FloatArray) -> FloatArray:
        """Outputs, shape (N, K)."""
        with _one_thread():
            return _array(self._pre_activations(torch.from_numpy(inputs_ND))[1][-1])

    def factors(self, inputs_ND: FloatArray) -> Factors:
        """Outputs and the factors of their gradients by the parameters."""
        with _one_thread():
            inputs, pre_activations = self._pre_activations(torch.from_numpy(inputs_ND))
            deltas = torch.autograd.grad(pre_activations[-1].sum(), pre_activations)
            return Factors(_array(pre_activations[-1]), tuple(map(_array, inputs)), tuple(map(_array, deltas)))

    def fit(
        self,
        inputs_ND: FloatArray,
        targets_N: np.ndarray,
        loss: Loss,
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        generator: np.random.Generator,
        batch_size: int = 256,
    ) -> None:
        """Minimize a loss by AdamW, from fresh moments.

        Args:
            inputs_ND: Examples.
            targets_N: Their targets.
            loss: The loss, such as `half_squared_error` or `cross_entropy`.
            steps: Steps.
            learning_rate: Step size.
            weight_decay: Decoupled decay per step, times the learning rate.
            generator: Draws the mini-batches.
            batch_size: Examples per step.
        """
        inputs, targets = torch.from_numpy(inputs_ND), torch.from_numpy(targets_N)
        with _one_thread():
            optimizer = torch.optim.AdamW(
                [*self._weights, *self._biases], lr=learning_rate, weight_decay=weight_decay, fused=True
            )
            for _ in range(steps):
                rows = torch.from_numpy(_rows(len(inputs_ND), batch_size, generator))
                optimizer.zero_grad()
                loss(self._pre_activations(inputs[rows])[1][-1], targets[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def state_dict(self) -> StateDict:
        """Weights and biases, as numpy arrays."""
        state: StateDict = {f"weight.{index}": _array(weight).copy() for index, weight in enumerate(self._weights)}
        return state | {f"bias.{index}": _array(bias).copy() for index, bias in enumerate(self._biases)}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to a network of other widths."""
        weights = [np.array(state[f"weight.{index}"]) for index in range(len(self._weights))]
        biases = [np.array(state[f"bias.{index}"]) for index in range(len(self._biases))]
        for here, there in zip([*self._weights, *self._biases], [*weights, *biases], strict=True):
            if tuple(here.shape) != there.shape:
                raise ValueError(f"state is of a layer of shape {there.shape}, here it is {tuple(here.shape)}")
        self._weights, self._biases = [_parameter(one) for one in weights], [_parameter(one) for one in biases]

    def _pre_activations(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The input and the pre-activation of every layer; the last pre-activation is the output."""
        layers, pre_activations = [inputs], []
        for weight, bias in zip(self._weights, self._biases, strict=True):
            pre_activations.append(torch.addmm(bias, layers[-1], weight))
            layers.append(pre_activations[-1].relu())
        return layers[:-1], pre_activations


def half_squared_error(outputs_N1: Tensor, targets_N: Tensor) -> Tensor:
    """Mean over examples of (f - y)^2 / 2."""
    return 0.5 * (outputs_N1[:, 0] - targets_N).square().mean()


def cross_entropy(outputs_NK: Tensor, targets_N: Tensor) -> Tensor:
    """Mean negative log-probability of the target classes, in nats."""
    return torch.nn.functional.cross_entropy(outputs_NK, targets_N)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread, and gradients, whatever the caller's modes are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def _parameter(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.detach().numpy()
    return array


def _rows(num: int, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    return np.arange(num) if num <= batch_size else generator.choice(num, batch_size, replace=False)

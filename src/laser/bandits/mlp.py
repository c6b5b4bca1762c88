"""A small multi-layer perceptron in numpy, with the per-example gradients that NeuralUCB needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from laser.core.types import FloatArray, StateDict


class MLP:
    """Linear layers with ReLU between them.

    Args:
        sizes: Widths from the input to the output.
        generator: Draws the weights (He initialisation); biases start at zero.
    """

    def __init__(self, sizes: Sequence[int], generator: np.random.Generator) -> None:
        self.sizes = tuple(sizes)
        self.weights = [
            generator.standard_normal((wide, narrow)) * np.sqrt(2.0 / wide) for wide, narrow in pairwise(sizes)
        ]
        self.biases = [np.zeros(width) for width in sizes[1:]]

    def forward(self, inputs_ND: FloatArray) -> list[FloatArray]:
        """The input of every layer and, last, the output, each of shape (N, width)."""
        layers = [inputs_ND]
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = layers[-1] @ weight + bias
            layers.append(np.maximum(hidden, 0.0) if index < len(self.weights) - 1 else hidden)
        return layers

    def deltas(self, layers: Sequence[FloatArray], output_NK: FloatArray) -> list[FloatArray]:
        """Back-propagate d/d(output) to the gradient at each layer's pre-activation, one array per layer.

        The gradient of example n by layer l's weights is the outer product of `layers[l][n]` and `deltas[l][n]`, and by
        its biases `deltas[l][n]`.
        """
        deltas = [output_NK]
        for index in range(len(self.weights) - 1, 0, -1):
            deltas.insert(0, (deltas[0] @ self.weights[index].T) * (layers[index] > 0))
        return deltas

    def fit(
        self,
        inputs_ND: FloatArray,
        output_gradient: Callable[[FloatArray, np.ndarray], FloatArray],
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        generator: np.random.Generator,
        batch_size: int = 256,
    ) -> None:
        """Minimise by Adam, from fresh moments.

        Args:
            inputs_ND: Examples.
            output_gradient: From outputs (n, K) and the rows (n,) they belong to, the gradient of the mean loss.
            steps: Adam steps.
            learning_rate: Step size.
            weight_decay: Decoupled decay per step, times the learning rate.
            generator: Draws the mini-batches.
            batch_size: Examples per step.
        """
        parameters = [*self.weights, *self.biases]
        first = [np.zeros_like(parameter) for parameter in parameters]
        second = [np.zeros_like(parameter) for parameter in parameters]
        for step in range(1, steps + 1):
            rows = _rows(len(inputs_ND), batch_size, generator)
            layers = self.forward(inputs_ND[rows])
            deltas = self.deltas(layers, output_gradient(layers[-1], rows))
            gradients = [hidden.T @ delta for hidden, delta in zip(layers[:-1], deltas, strict=True)]
            gradients += [delta.sum(axis=0) for delta in deltas]
            for parameter, gradient, m, v in zip(parameters, gradients, first, second, strict=True):
                m += 0.1 * (gradient - m)
                v += 0.001 * (gradient**2 - v)
                corrected = np.sqrt(v / (1 - 0.999**step)) + 1e-8
                parameter *= 1 - learning_rate * weight_decay
                parameter -= learning_rate * (m / (1 - 0.9**step)) / corrected

    def state_dict(self) -> StateDict:
        """Weights and biases."""
        state: StateDict = {f"weight.{index}": weight.copy() for index, weight in enumerate(self.weights)}
        return state | {f"bias.{index}": bias.copy() for index, bias in enumerate(self.biases)}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to a network of other widths."""
        weights = [np.array(state[f"weight.{index}"]) for index in range(len(self.weights))]
        biases = [np.array(state[f"bias.{index}"]) for index in range(len(self.biases))]
        for here, there in zip([*self.weights, *self.biases], [*weights, *biases], strict=True):
            if here.shape != there.shape:
                raise ValueError(f"state is of a layer of shape {there.shape}, here it is {here.shape}")
        self.weights, self.biases = weights, biases


def _rows(num: int, batch_size: int, generator: np.random.Generator) -> np.ndarray:
    return np.arange(num) if num <= batch_size else generator.choice(num, batch_size, replace=False)

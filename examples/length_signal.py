"""A signal: 1 for a reward model that is indifferent to length, 0 for one that always prefers longer or shorter."""

from collections.abc import Sequence

import numpy as np

from laser.extend import Batch, Charge, FloatArray, Responses, RewardPool, Stateless


class LengthSignal(Stateless):  # nothing to prepare, no state
    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        return np.array([self._indifference(responses, charge) for charge in charges])

    def _indifference(self, responses: Responses, charge: Charge) -> float:
        if not charge.pairs:
            return float("nan")  # no value: the scaled loss counts alone
        longer = []
        for pair in charge.pairs:
            texts = [response.text for response in responses[pair.prompt]]
            longer.append(len(texts[pair.chosen]) > len(texts[pair.rejected]))
        return 1.0 - abs(2.0 * float(np.mean(longer)) - 1.0)


def make(pool: RewardPool) -> LengthSignal:
    return LengthSignal()

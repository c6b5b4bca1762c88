"""The classifier baseline: a K-way MLP from a query's embedding to a reward model (arXiv 2410.01735, Sec. A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laser.bandits.arm_selector import Judgement, best_arms
from laser.bandits.baselines import Unlearning
from laser.core.seeding import stream
from laser.core.types import BoolArray, FloatArray, IntArray, StateDict

HIDDEN = (2048, 1024)


@dataclass(frozen=True, slots=True)
class LabeledQueries:
    """Queries labeled with the best reward model for them.

    Attributes:
        embeddings_ND: One row per query.
        labels_N: The arm that orders the query's pair correctly with the largest score difference.
        num_unlabeled: Number of pairs that no reward model ordered correctly; they are left out.
    """

    embeddings_ND: FloatArray
    labels_N: IntArray
    num_unlabeled: int


def label_queries(embeddings_ND: FloatArray, differences_NK: FloatArray) -> LabeledQueries:
    """Apply the paper's labeling rule.

    Args:
        embeddings_ND: Query embeddings.
        differences_NK: Score of the chosen minus score of the rejected response, by reward model; NaN counts as wrong.

    Raises:
        ValueError: Fewer than two reward models are ever the best, so there is nothing to classify.
    """
    right_N = (np.nan_to_num(differences_NK, nan=-np.inf) > 0).any(axis=1)
    labels = np.nan_to_num(differences_NK[right_N], nan=-np.inf).argmax(axis=1)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            "the preference pairs have fewer than two labels: one reward model is the best on all of them, or none "
            "orders any correctly; use pairs on which the reward models differ"
        )
    return LabeledQueries(embeddings_ND[right_N], labels.astype(np.int64), int((~right_N).sum()))


class QueryClassifier:
    """An MLP with K outputs on standardized inputs.

    Args:
        dim: D.
        num_arms: K.
        hidden: Hidden widths (paper: 2048 and 1024).
        seed: Seeds weights and mini-batches.
    """

    def __init__(self, dim: int, num_arms: int, *, hidden: tuple[int, ...] = HIDDEN, seed: int = 0) -> None:
        self.num_arms, self.dim, self.hidden = num_arms, dim, hidden
        self._seed = seed
        from laser.bandits.mlp import MLP  # imports torch

        self._network = MLP((dim, *hidden, num_arms), stream(seed, "bandit", 0))
        self._mean_D, self._deviation_D = np.zeros(dim), np.ones(dim)

    def fit(self, queries: LabeledQueries, *, steps: int = 300, learning_rate: float = 1e-3) -> None:
        """Minimize the cross-entropy by AdamW."""
        from laser.bandits.mlp import cross_entropy  # imports torch

        self._mean_D = queries.embeddings_ND.mean(axis=0)
        self._deviation_D = np.maximum(queries.embeddings_ND.std(axis=0), 1e-6)
        self._network.fit(
            (queries.embeddings_ND - self._mean_D) / self._deviation_D,
            queries.labels_N,
            cross_entropy,
            steps=steps,
            learning_rate=learning_rate,
            weight_decay=0.01,
            generator=stream(self._seed, "bandit", 3),
        )

    def probabilities(self, contexts_MD: FloatArray) -> FloatArray:
        """Return the probability of each arm, shape (M, K)."""
        return _softmax(self._network.outputs((contexts_MD - self._mean_D) / self._deviation_D))

    def accuracy(self, queries: LabeledQueries) -> float:
        """Return the share of queries whose label is the most probable arm."""
        return float((self.probabilities(queries.embeddings_ND).argmax(axis=1) == queries.labels_N).mean())

    def state_dict(self) -> StateDict:
        """Return the weights and the moments of the inputs."""
        moments: StateDict = {"mean": self._mean_D, "deviation": self._deviation_D, "hidden": list(self.hidden)}
        return {"num_arms": self.num_arms, "dim": self.dim} | moments | self._network.state_dict()

    @classmethod
    def restore(cls, state: StateDict) -> QueryClassifier:
        """Return the classifier that `state_dict` describes."""
        classifier = cls(int(state["dim"]), int(state["num_arms"]), hidden=tuple(state["hidden"]))
        classifier._mean_D, classifier._deviation_D = state["mean"], state["deviation"]
        classifier._network.load_state_dict(state)
        return classifier


class ClassifierSelector(Unlearning):
    """Chooses the reward model that a trained classifier finds most probable; never learns.

    Args:
        classifier: Trained on the unprepared embeddings of queries.
        arms: The arm of each output of the classifier; None: in the same order.
        num_arms: K; None: the classifier's. Arms that it does not know have probability 0: they are chosen only while
            all that it knows are unavailable.
    """

    kind = "classifier"

    def __init__(
        self, classifier: QueryClassifier, arms: Sequence[int] | None = None, *, num_arms: int | None = None
    ) -> None:
        super().__init__(num_arms or classifier.num_arms, classifier.dim)
        self._classifier = classifier
        self._arms = list(range(classifier.num_arms) if arms is None else arms)

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """Return probability 1 for the most probable arm."""
        values_MK = np.zeros((len(contexts_MD), self.num_arms))
        values_MK[:, self._arms] = self._classifier.probabilities(contexts_MD)
        return Judgement(values_MK, best_arms(values_MK, available_K))


def fit_prior(embeddings_ND: FloatArray, differences_NK: FloatArray, *, ridge: float) -> FloatArray:
    """Return BayesianRouter's prior means: by arm a ridge regression of a correct order (0 or 1) on the query.

    Source: arXiv 2510.02850, the offline router, reduced to its linear last layer on fixed embeddings.

    Returns:
        theta_0, shape (K, D).
    """
    correct_NK = np.nan_to_num(differences_NK, nan=-1.0) > 0
    gram_DD = embeddings_ND.T @ embeddings_ND + ridge * np.eye(embeddings_ND.shape[1])
    theta_DK = np.linalg.solve(gram_DD, embeddings_ND.T @ correct_NK.astype(np.float64))
    return np.ascontiguousarray(theta_DK.T, dtype=np.float64)


def _softmax(values_MK: FloatArray) -> FloatArray:
    exponentials = np.exp(values_MK - values_MK.max(axis=1, keepdims=True))
    normalized: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalized

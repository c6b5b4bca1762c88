"""Preparation of bandit contexts: normalize, project, scale.

Hidden states have norms of tens to hundreds and one dominant direction, so with A = I the confidence width of LinUCB
collapses after a few pulls; alpha means something only relative to the norm of what it sees. The paper uses hidden
states as they are (normalization "none"); the rest are departures from it, chosen in the configuration.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from laser.core.seeding import stream
from laser.core.types import FloatArray, StateDict

Normalization = Literal["none", "l2", "standardize", "unit"]

_FLOOR = 1e-12  # a feature without spread, or a zero vector, is left at zero


class ContextPreparer:
    """Turns embeddings into contexts, in float64 rounded to float32's grid.

    The rounding loses nothing a hidden state had and lets a bandit keep its contexts in half the bytes.

    Args:
        dim: Features of an embedding.
        normalization: "none"; "l2", unit length; "standardize", each feature by its running mean and standard deviation
            over all rows seen, those of the current call included; "unit", standardised, then of unit length, then
            with a constant 1 as one more feature: alpha and the ridge mean the same at every width, and the level
            of an arm has a separate feature instead of the direction that all hidden states share.
        scale: Factor on the result.
        projection: Project to this many features by a seeded Gaussian matrix, keeping norms on average; None: no
            projection.
        seed: Seeds the projection, which is made again from it and never stored.
    """

    def __init__(
        self,
        dim: int,
        *,
        normalization: Normalization = "none",
        scale: float = 1.0,
        projection: int | None = None,
        seed: int = 0,
    ) -> None:
        self._dim = dim
        self._normalization = normalization
        self._scale = scale
        self._projection = None
        if projection is not None:
            gaussian = stream(seed, "context").standard_normal((dim, projection))
            self._projection = gaussian / np.sqrt(projection)
        self._count = 0
        self._mean_D = np.zeros(dim)
        self._squares_D = np.zeros(dim)

    @property
    def output_dim(self) -> int:
        """D, the features of a prepared context."""
        width = self._dim if self._projection is None else int(self._projection.shape[1])
        return width + (self._normalization == "unit")

    def __call__(self, embeddings_MD: FloatArray) -> FloatArray:
        """Prepare M embeddings; "standardize" remembers them.

        Raises:
            ValueError: Wrong width, or features that are not finite.
        """
        self.remember(embeddings_MD)
        return self.prepared(embeddings_MD)

    def remember(self, embeddings_MD: FloatArray) -> None:
        """Add M embeddings to the running moments, where the normalization has some; raises as `__call__` does."""
        rows = self._checked(embeddings_MD)
        if self._normalization not in ("standardize", "unit"):
            return
        for row in rows:  # Welford's recursion: no difference of large sums
            self._count += 1
            delta = row - self._mean_D
            self._mean_D = self._mean_D + delta / self._count
            self._squares_D = self._squares_D + delta * (row - self._mean_D)

    def prepared(self, embeddings_MD: FloatArray) -> FloatArray:
        """Prepare M embeddings by the moments so far; nothing changes, and it raises as `__call__` does."""
        rows = self._checked(embeddings_MD)
        if self._normalization == "l2":
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _FLOOR)
        elif self._normalization != "none":
            rows = self._standardized(rows)
        if self._projection is not None:
            rows = rows @ self._projection
        if self._normalization == "unit":
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _FLOOR)
            rows = np.hstack([rows, np.ones((len(rows), 1))])
        return (self._scale * rows).astype(np.float32).astype(np.float64)

    def _checked(self, embeddings_MD: FloatArray) -> FloatArray:
        rows = np.asarray(embeddings_MD, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self._dim:
            raise ValueError(f"embeddings have shape {rows.shape}, expected (M, {self._dim})")
        if not np.isfinite(rows).all():
            raise ValueError(f"{int((~np.isfinite(rows)).sum())} of {rows.size} context features are not finite")
        return rows

    def _standardized(self, rows: FloatArray) -> FloatArray:
        deviation_D = np.sqrt(self._squares_D / max(1, self._count))
        centered = rows - self._mean_D
        return np.where(deviation_D > _FLOOR, centered / np.maximum(deviation_D, _FLOOR), 0.0)

    def state_dict(self) -> StateDict:
        """Running moments."""
        return {"count": self._count, "mean": self._mean_D, "squares": self._squares_D}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to another width."""
        if len(state["mean"]) != self._dim:
            raise ValueError(f"state is of {len(state['mean'])} features, contexts here have {self._dim}")
        self._count = int(state["count"])
        self._mean_D = np.array(state["mean"], dtype=np.float64)
        self._squares_D = np.array(state["squares"], dtype=np.float64)

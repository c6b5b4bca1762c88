"""Configuration of experiment trackers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from laser.config.section import Section

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrackingConfig(Section):
    """Trackers that a run reports to, through accelerate; their servers and keys are set in their own environment."""

    to: tuple[TrackerName, ...] = Field((), description="tensorboard, wandb, mlflow, trackio; none by default.")
    project: str = Field(
        "laser", min_length=1, description="Project, or MLflow's experiment, that runs are filed under."
    )
    name: str | None = Field(None, description="Name of the run there; None: that of the run directory.")

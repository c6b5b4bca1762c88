"""A pairwise judge from its configuration."""

from __future__ import annotations

from pathlib import Path

from laser.config.judge import JudgeConfig
from laser.rewards.pairwise_judge import TEMPLATE, PairwiseJudge
from laser.serving.cache import CachedEndpoint
from laser.wiring.servers import build_endpoint, request_fields


def build_pairwise_judge(section: JudgeConfig, cache: Path | None) -> PairwiseJudge:
    """Make a judge.

    Args:
        section: Its configuration.
        cache: File that keeps replies if the configuration names none; None: no file.

    Raises:
        LaserError: The address, key, template or cache cannot be used.
    """
    return PairwiseJudge(
        CachedEndpoint(build_endpoint(section), Path(section.cache) if section.cache is not None else cache),
        model=section.model,
        template=section.template or TEMPLATE,
        use_logprobs=section.use_logprobs,
        fields=request_fields(section),
    )

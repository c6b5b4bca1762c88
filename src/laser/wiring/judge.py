"""A pairwise judge from its configuration."""

from __future__ import annotations

from pathlib import Path

from laser.config.judge import JudgeConfig
from laser.rewards.pairwise_judge import TEMPLATE, PairwiseJudge
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint

_MAX_FAILURES = 16  # failures in a row; no fewer than two for every request under way


def build_pairwise_judge(section: JudgeConfig, cache: Path | None) -> PairwiseJudge:
    """Make a judge.

    Args:
        section: Its configuration.
        cache: Where replies are kept if the configuration does not say; None: nowhere.

    Raises:
        LaserError: The address, key, template or cache cannot be used.
    """
    endpoint = Endpoint(
        section.url,
        api_key_env=section.api_key_env,
        timeout=section.timeout,
        retries=section.retries,
        concurrency=section.concurrency,
    )
    return PairwiseJudge(
        CachedEndpoint(endpoint, Path(section.cache) if section.cache is not None else cache),
        model=section.model,
        template=section.template or TEMPLATE,
        use_logprobs=section.use_logprobs,
        max_tokens=section.max_tokens,
        max_failures=max(_MAX_FAILURES, 2 * section.concurrency),
    )

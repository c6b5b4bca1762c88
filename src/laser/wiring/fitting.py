"""Prompts that leave room for a response, shortened where the configuration allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from laser.config import schema
from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.data.split import Splits
from laser.policy.fitting import Fitted, cut_middle
from laser.policy.policy import Policy
from laser.training.probe_items import ProbeData


@dataclass(frozen=True, slots=True)
class Room:
    """The prompts of a run, all of which fit.

    Attributes:
        splits: The prompts.
        probe: The probe's prompts and labeled pairs.
        num_cut: Prompts that were cut in the middle.
        num_tokens_cut: Tokens removed from them.
    """

    splits: Splits
    probe: ProbeData
    num_cut: int
    num_tokens_cut: int

    def as_record(self) -> dict[str, int]:
        """JSON-able counts for run.json."""
        splits = self.splits.by_name()
        counts = {name: len(prompts) for name, prompts in splits.items()}
        probed = sum(len(rows) for of in (self.probe.prompts, self.probe.pairs) for rows in of.values())
        return {**counts, "probe": probed, "cut_in_the_middle": self.num_cut, "tokens_cut": self.num_tokens_cut}


def fit_prompts(config: schema.RunConfig, policy: Policy, prompts: Sequence[Prompt], max_new_tokens: int) -> Fitted:
    """Make every prompt leave room for `max_new_tokens` new tokens.

    Raises:
        DataError: One does not, and `policy.overlong` refuses it or its last message is too short to cut.
    """
    keeps = config.policy.overlong == "refuse"
    fitted = Fitted(prompts, 0, 0) if keeps else cut_middle(policy, prompts, max_new_tokens)
    policy.check_fits(fitted.prompts, max_new_tokens)
    return fitted


def make_room(config: schema.RunConfig, policy: Policy, splits: Splits, probe: ProbeData) -> Room:
    """Make the training, probe and development prompts of a run fit; a run does not use test prompts.

    Raises:
        DataError: One does not fit, or there is nothing to train on.
    """
    if not splits.train:
        raise DataError("there are no training prompts; set split.train, or lower split.dev and split.test")
    longest = config.generation.max_new_tokens
    dev_longest = max(longest, config.evaluation.max_new_tokens or 0)
    train = fit_prompts(config, policy, splits.train, longest)
    dev = fit_prompts(config, policy, splits.dev, dev_longest)
    probed = {name: fit_prompts(config, policy, prompts, longest) for name, prompts in probe.prompts.items()}
    paired = {name: fit_prompts(config, policy, [one.prompt for one in of], 1) for name, of in probe.pairs.items()}
    pairs = {
        name: [replace(pair, prompt=prompt) for pair, prompt in zip(of, paired[name].prompts, strict=True)]
        for name, of in probe.pairs.items()
    }
    parts = [train, dev, *probed.values(), *paired.values()]
    return Room(
        splits=Splits(train.prompts, dev.prompts, splits.test),
        probe=ProbeData({name: fitted.prompts for name, fitted in probed.items()}, pairs),
        num_cut=sum(part.num_cut for part in parts),
        num_tokens_cut=sum(part.num_tokens for part in parts),
    )

"""Preference losses as pure functions of log-probs (arXiv 2410.01735, Sec. 3.1).

Every ``*_logps`` is the natural-log probability of a whole response, summed over its tokens (nats). All functions
return one loss per pair, or per response for KTO; the caller averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LossName = Literal["dpo", "nll", "nll+dpo", "kto"]


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Direct preference optimization, -log sigmoid(beta (r_w - r_l)).

    Source: arXiv 2305.18290, Eq. 7; arXiv 2410.01735, Sec. 3.1. Deviations: none.

    Args:
        policy_chosen_logps: log pi_m(y_w | x), shape (P,).
        policy_rejected_logps: log pi_m(y_l | x), shape (P,).
        reference_chosen_logps: log pi_{m-1}(y_w | x), shape (P,), without gradient.
        reference_rejected_logps: log pi_{m-1}(y_l | x), shape (P,), without gradient.
        beta: Strength of the pull toward the reference.

    Returns:
        Loss of each pair in nats, shape (P,); log 2 where policy and reference agree.
    """
    r_w = policy_chosen_logps - reference_chosen_logps
    r_l = policy_rejected_logps - reference_rejected_logps
    return -logsigmoid(beta * (r_w - r_l))


def nll_loss(policy_chosen_logps: Tensor, chosen_lengths: Tensor) -> Tensor:
    """Negative log-likelihood of the chosen response per token, -log pi_m(y_w | x) / |y_w|.

    Source: arXiv 2410.01735, Sec. 3.1 (after arXiv 2404.19733). Deviations: none; each response is divided by its own
    length.

    Args:
        policy_chosen_logps: log pi_m(y_w | x), shape (P,).
        chosen_lengths: |y_w| in tokens, shape (P,), at least 1.

    Returns:
        Loss of each pair in nats per token, shape (P,).
    """
    return -policy_chosen_logps / chosen_lengths


def kto_loss(policy_logps: Tensor, reference_logps: Tensor, desirable: Tensor, kl: Tensor, *, beta: float) -> Tensor:
    """Kahneman-Tversky optimization with both weights lambda = 1.

    Source: arXiv 2402.01306, Eq. 8: 1 - sigmoid(beta (r - z0)) for a desirable response and
    1 - sigmoid(beta (z0 - r)) for an undesirable one. Deviations: none.

    Args:
        policy_logps: log pi_m(y | x), shape (N,).
        reference_logps: log pi_{m-1}(y | x), shape (N,), without gradient.
        desirable: True for chosen responses, shape (N,).
        kl: z0, the estimate of KL(pi_m || pi_{m-1}) in nats, a non-negative scalar without gradient.
        beta: Risk aversion.

    Returns:
        Loss of each response in [0, 1], shape (N,).
    """
    advantage = policy_logps - reference_logps - kl
    return 1 - torch.sigmoid(beta * torch.where(desirable, advantage, -advantage))


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Log-probs of P pairs: tensors of shape (P,), in nats, lengths in tokens."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_lengths: Tensor


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss a run trains on.

    Attributes:
        loss: Which of the four losses of the paper.
        beta: Strength of the reference in DPO and KTO.
        nll_weight: Weight of NLL in NLL+DPO (paper: 1).
    """

    loss: LossName
    beta: float = 0.1
    nll_weight: float = 1.0

    @property
    def needs_reference(self) -> bool:
        """Whether log-probs under the reference policy enter the loss."""
        return self.loss != "nll"

    @property
    def needs_kl(self) -> bool:
        """Whether the KL estimate of KTO enters the loss."""
        return self.loss == "kto"

    def parts(self, logps: PairLogps, kl: Tensor) -> dict[str, Tensor]:
        """Return the weighted parts of the loss by name, each of shape (P,); their sum is the loss of the pair.

        A KTO pair is two responses, the chosen one desirable and the rejected one not; its loss is their mean.
        """
        match self.loss:
            case "dpo":
                return {"dpo": self._dpo(logps)}
            case "nll":
                return {"nll": nll_loss(logps.policy_chosen, logps.chosen_lengths)}
            case "nll+dpo":
                nll = nll_loss(logps.policy_chosen, logps.chosen_lengths)
                return {"nll": self.nll_weight * nll, "dpo": self._dpo(logps)}
            case "kto":
                yes = torch.ones_like(logps.policy_chosen, dtype=torch.bool)
                chosen = kto_loss(logps.policy_chosen, logps.reference_chosen, yes, kl, beta=self.beta)
                rejected = kto_loss(logps.policy_rejected, logps.reference_rejected, ~yes, kl, beta=self.beta)
                return {"kto": (chosen + rejected) / 2}

    def _dpo(self, logps: PairLogps) -> Tensor:
        return dpo_loss(
            logps.policy_chosen,
            logps.policy_rejected,
            logps.reference_chosen,
            logps.reference_rejected,
            beta=self.beta,
        )

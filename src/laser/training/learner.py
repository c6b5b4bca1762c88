"""Fine-tune on the pairs of one batch: micro-batches, gradients, optimizer steps (Algorithm 1, step 4).

A response goes through the policy once, however many pairs it is in: pairs index into the batch's responses.
Micro-batches hold whole prompts, so that a loss over two responses of a prompt never straddles two graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from laser.core.errors import TrainingError, diverged
from laser.core.types import FloatArray, Pair, Responses, StateDict
from laser.parallel.memory import Budget
from laser.parallel.ranks import Alone, Ranks
from laser.policy.policy import Policy, Which
from laser.training.charges import Charge
from laser.training.losses import Objective, PairLogps
from laser.training.used_responses import (
    TokenIds,
    UsedResponses,
    collect,
    group_by_prompt,
    mean_over_pairs,
    micro_batches,
    split_by_prompt,
)

BanditLoss = Literal["train", "post_update", "decrease"]

_OUT_OF_MEMORY = TrainingError(
    "the device ran out of memory on one prompt's responses in training; lower generation.num_responses or "
    "generation.max_new_tokens, or set training.gradient_checkpointing = true, and resume"
)
_TOLERANCE = 1e-3  # nats per token, between log-probs of sampling and of scoring; rounding in float32 is 1e-5
_TOLERANCE_HALF = 0.02  # the same in bfloat16


@dataclass(frozen=True, slots=True)
class LearnResult:
    """What training on one batch gave.

    Attributes:
        losses_B: Mean loss of each prompt's pairs, NaN for a prompt without pairs, shape (B,), in nats.
        parts: Mean over pairs of each part of the loss (before the update, averaged over the optimizer steps).
        grad_norm: Largest gradient norm before clipping over the optimizer steps; 0 where nothing was trained.
        num_tokens: Prompt and response tokens that went forward and backward.
        num_optimizer_steps: Optimizer steps made.
        bandit_losses_E: Mean loss over the pairs of each charge, NaN for a charge without pairs, shape (E,), in nats.
    """

    losses_B: FloatArray
    parts: dict[str, float]
    grad_norm: float
    num_tokens: int
    num_optimizer_steps: int
    bandit_losses_E: FloatArray = field(default_factory=lambda: np.empty(0))


class Learner:
    """Trains the policy's adapter on preference pairs.

    Args:
        policy: The policy and its reference.
        objective: The loss.
        learning_rate: AdamW learning rate after warm-up (paper: 5e-6).
        reference: Whose log-probs the loss compares with: "previous_iteration" or "initial" (the base model).
        warmup_steps: Optimizer steps of linear warm-up; constant afterwards.
        weight_decay: AdamW weight decay.
        max_grad_norm: Gradients are clipped to this norm.
        epochs: Passes over a batch's pairs.
        optimizer_steps: Optimizer steps per pass; the prompts with pairs are split evenly.
        max_batch_tokens: Budget of a micro-batch, which holds at least one prompt. Halved, for good, where memory runs
            out. None: what suits the device (`laser.lm.footprint`).
        bandit_loss: The loss the bandit is fed: that of training, that after the update, or the latter minus that
            before the update ("decrease", negative where the update lowered the loss).
        sampled_by_reference: The responses were sampled from the reference, so its log-probs are those of sampling;
            checked on one prompt per batch, and computed where they differ.
        ranks: The processes of the run; each trains on its share of the prompts, and gradients are summed.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        *,
        learning_rate: float,
        reference: str = "previous_iteration",
        warmup_steps: int = 0,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        epochs: int = 1,
        optimizer_steps: int = 1,
        max_batch_tokens: int | None = None,
        bandit_loss: BanditLoss = "train",
        sampled_by_reference: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self.policy = policy
        self._sampled_by_reference = sampled_by_reference
        self._ranks = ranks or Alone()
        self.objective = objective
        self._reference: Which = "base" if reference == "initial" else "reference"
        self._learning_rate = learning_rate
        self._warmup_steps = warmup_steps
        self._max_grad_norm = max_grad_norm
        self._epochs = epochs
        self._optimizer_steps = optimizer_steps
        self._budget = Budget(max_batch_tokens or policy.training_tokens, _OUT_OF_MEMORY)
        self._bandit_loss = bandit_loss
        self._parameters = list(policy.trainable_parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=learning_rate, betas=(0.9, 0.999), weight_decay=weight_decay, foreach=True
        )
        self._num_steps = 0

    def learn(
        self,
        prompt_ids: Sequence[TokenIds],
        responses: Responses,
        pairs: Sequence[Pair],
        charges: Sequence[Charge] = (),
    ) -> LearnResult:
        """Train on the pairs of one batch, and measure the loss of each charge.

        The members of an ensemble orient the pairs their own way, so the loss of theirs is measured before the update.

        Args:
            prompt_ids: Rendered prompts, B sequences of token ids.
            responses: Responses of each prompt.
            pairs: Oriented pairs; without any, nothing is trained.
            charges: Reward models that earn a bandit reward, and their pairs.

        Raises:
            TrainingError: The loss, its gradient or the weights after a step are not finite.
        """
        if not all(charge.trained for charge in charges):
            losses_EB = self.measure_each(prompt_ids, responses, [charge.pairs for charge in charges])
            learned = self._train(prompt_ids, responses, pairs)
        else:
            decrease = self._bandit_loss == "decrease" and len(charges) > 0
            before_B = self.measure(prompt_ids, responses, pairs) if decrease else 0.0
            learned = self._train(prompt_ids, responses, pairs)
            losses_B = learned.losses_B
            if self._bandit_loss != "train" and charges:
                losses_B = self.measure(prompt_ids, responses, pairs) - before_B
            losses_EB = [losses_B] * len(charges)
        means = [mean_over_pairs(losses_B, charge.pairs) for losses_B, charge in zip(losses_EB, charges, strict=True)]
        return replace(learned, bandit_losses_E=np.array(means, dtype=np.float64))

    def _train(self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]) -> LearnResult:
        trained: list[tuple[Pair, dict[str, float]]] = []
        grad_norms, num_tokens = [0.0], 0
        reference = self._reference_logps(prompt_ids, responses, pairs)
        for _ in range(self._epochs if pairs else 0):
            for chunk in split_by_prompt(pairs, self._optimizer_steps):
                parts, norm, tokens = self._optimizer_step(prompt_ids, responses, chunk, reference)
                trained.extend(zip(chunk, parts, strict=True))
                grad_norms.append(norm)
                num_tokens += tokens
        return LearnResult(
            losses_B=_mean_losses(trained, len(prompt_ids)),
            parts=_mean_parts([parts for _, parts in trained]),
            grad_norm=max(grad_norms),
            num_tokens=num_tokens,
            num_optimizer_steps=len(grad_norms) - 1,
        )

    def measure(self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]) -> FloatArray:
        """Loss of each prompt's pairs under the current policy, without training.

        Returns:
            Shape (B,), in nats; NaN for a prompt without pairs.
        """
        return self.measure_each(prompt_ids, responses, [pairs])[0]

    @torch.no_grad()
    def measure_each(
        self, prompt_ids: Sequence[TokenIds], responses: Responses, pair_sets: Sequence[Sequence[Pair]]
    ) -> list[FloatArray]:
        """`measure` for several sets of pairs; each response goes through the policy once."""
        union = list(dict.fromkeys(pair for pairs in pair_sets for pair in pairs))
        reference = self._reference_logps(prompt_ids, responses, union)
        kl = self._kl(prompt_ids, responses, union)
        used = collect(prompt_ids, responses, union)
        logps = self._logps(used.prompt_ids, used.response_ids, "policy") if union else None
        losses = []
        for pairs in pair_sets:
            measured: list[tuple[Pair, dict[str, float]]] = []
            if pairs and logps is not None:
                parts = self.objective.parts(_pair_logps(pairs, used, responses, logps, reference), kl)
                measured = list(zip(pairs, _rows(parts), strict=True))
            losses.append(_mean_losses(measured, len(prompt_ids)))
        return losses

    def state_dict(self) -> StateDict:
        """Moments of the optimizer and the number of steps made."""
        state: StateDict = {"num_steps": self._num_steps}
        for index, parameter in enumerate(self._parameters):
            moments = self._optimizer.state.get(parameter)
            if moments:
                state[f"exp_avg.{index}"] = moments["exp_avg"].cpu().numpy().copy()
                state[f"exp_avg_sq.{index}"] = moments["exp_avg_sq"].cpu().numpy().copy()
        return state

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to other adapters."""
        self._num_steps = int(state["num_steps"])
        self._optimizer.state.clear()
        for index, parameter in enumerate(self._parameters):
            if f"exp_avg.{index}" not in state:
                continue
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(self._num_steps)),
                "exp_avg": _moments_like(parameter, state[f"exp_avg.{index}"]),
                "exp_avg_sq": _moments_like(parameter, state[f"exp_avg_sq.{index}"]),
            }

    def _optimizer_step(
        self,
        prompt_ids: Sequence[TokenIds],
        responses: Responses,
        pairs: Sequence[Pair],
        reference: Mapping[tuple[int, int], float],
    ) -> tuple[list[dict[str, float]], float, int]:
        """One optimizer step on the mean loss of `pairs`; returns the parts of each pair, gradient norm and tokens."""
        kl = self._kl(prompt_ids, responses, pairs)
        groups = group_by_prompt(pairs)

        def go_through(part: slice) -> list[tuple[list[dict[str, float]], int]]:
            mine = [pair for group in groups[part] for pair in group]
            done = self._budget.spend(
                lambda tokens: self._backward(prompt_ids, responses, mine, reference, kl, len(pairs), tokens),
                least=max(collect(prompt_ids, responses, group).num_tokens for group in groups[part]),
            )
            return [done, *[([], 0)] * (part.stop - part.start - 1)]

        done = self._ranks.together(go_through, len(groups))
        self._add_gradients()
        parts = [row for rows, _ in done for row in rows]
        parts_of = dict(zip((pair for group in groups for pair in group), parts, strict=True))
        return [parts_of[pair] for pair in pairs], self._apply_gradients(), sum(tokens for _, tokens in done)

    def _backward(
        self,
        prompt_ids: Sequence[TokenIds],
        responses: Responses,
        pairs: Sequence[Pair],
        reference: Mapping[tuple[int, int], float],
        kl: Tensor,
        num_pairs: int,
        max_batch_tokens: int,
    ) -> tuple[list[dict[str, float]], int]:
        """Accumulate the gradient of the sum of losses over `num_pairs`; returns each pair's parts, and tokens."""
        self._optimizer.zero_grad(set_to_none=True)  # of a try that ran out of memory
        rows: list[dict[str, float]] = []
        num_tokens = 0
        for micro in micro_batches(prompt_ids, responses, pairs, max_batch_tokens):
            used = collect(prompt_ids, responses, micro)
            logps = self.policy.trainable_logps(
                used.prompt_ids, used.response_ids, moment=(self._num_steps, micro[0].prompt)
            )
            parts = self.objective.parts(_pair_logps(micro, used, responses, logps, reference), kl)
            loss = torch.stack([part.sum() for part in parts.values()]).sum() / num_pairs
            if not torch.isfinite(loss):
                raise diverged(f"the loss became {loss.item()}")
            loss.backward()  # type: ignore[no-untyped-call]
            rows.extend(_rows(parts))
            num_tokens += used.num_tokens
        return rows, num_tokens

    def _add_gradients(self) -> None:
        """Sum the gradients over processes; a process without pairs adds zeros."""
        if self._ranks.size == 1:
            return
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._ranks.add([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def _logps(
        self, prompt_ids: Sequence[TokenIds], response_ids: Sequence[Sequence[TokenIds]], which: Which
    ) -> Tensor:
        """`Policy.logps`, flat, by all processes, each for its share of the prompts."""
        rows = self._ranks.together(
            lambda part: [row.cpu() for row in self.policy.logps(prompt_ids[part], response_ids[part], which=which)],
            len(prompt_ids),
        )
        return torch.cat(rows).to(self.policy.device)

    def _apply_gradients(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        if not torch.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            raise diverged("the gradient is not finite")
        self._num_steps += 1
        warmup = min(1.0, self._num_steps / self._warmup_steps) if self._warmup_steps else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * warmup
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        # the norm overflows before layers that square their input do
        if not torch.isfinite(torch.nn.utils.get_total_norm(self._parameters)):
            raise diverged("the policy's weights are not finite after an optimizer step, and are not saved")
        return float(norm)

    def _reference_logps(
        self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]
    ) -> dict[tuple[int, int], float]:
        """Reference log-prob of each response in a pair; empty if the loss does not use the reference."""
        if not (self.objective.needs_reference and pairs):
            return {}
        used = collect(prompt_ids, responses, pairs)
        if self._sampled_by_reference:
            sampled = {(prompt, index): sum(responses[prompt][index].sampling_logps) for prompt, index in used.numbers}
            if self._agrees(used, sampled):
                return sampled
        logps = self._logps(used.prompt_ids, used.response_ids, self._reference).tolist()
        return {key: logps[number] for key, number in used.numbers.items()}

    def _agrees(self, used: UsedResponses, sampled: Mapping[tuple[int, int], float]) -> bool:
        """Whether the sampler's log-probs of the first prompt's responses are the reference's, up to rounding."""
        first = [key for key in used.numbers if key[0] == used.prompts[0]]
        computed = self.policy.logps(used.prompt_ids[:1], used.response_ids[:1], which=self._reference)[0].tolist()
        num_tokens = sum(map(len, used.response_ids[0]))
        gap = sum(abs(value - sampled[key]) for value, key in zip(computed, first, strict=True))
        tolerance = _TOLERANCE if self.policy.model.dtype == torch.float32 else _TOLERANCE_HALF
        return bool(gap <= tolerance * num_tokens)

    @torch.no_grad()
    def _kl(self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]) -> Tensor:
        """The reference point z0 of KTO, in nats, at least 0.

        Source: arXiv 2402.01306, Sec. 4.1: mean log-ratio over mismatched (prompt, response). Each prompt is given the
        responses of the next prompt that has pairs. Deviation: with a single prompt nothing can be mismatched, and z0
        is 0.
        """
        zero = torch.zeros((), device=self.policy.device)
        if not (self.objective.needs_kl and pairs):
            return zero
        used = collect(prompt_ids, responses, pairs)
        if len(used.prompts) < 2:
            return zero
        moved = used.response_ids[1:] + used.response_ids[:1]
        policy = self._logps(used.prompt_ids, moved, "policy")
        reference = self._logps(used.prompt_ids, moved, self._reference)
        return (policy - reference).mean().clamp(min=0)


def _pair_logps(
    pairs: Sequence[Pair],
    used: UsedResponses,
    responses: Responses,
    logps: Tensor,
    reference: Mapping[tuple[int, int], float],
) -> PairLogps:
    chosen = [(pair.prompt, pair.chosen) for pair in pairs]
    rejected = [(pair.prompt, pair.rejected) for pair in pairs]

    def constant(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=logps.dtype, device=logps.device)

    return PairLogps(
        policy_chosen=logps[[used.numbers[key] for key in chosen]],
        policy_rejected=logps[[used.numbers[key] for key in rejected]],
        reference_chosen=constant([reference.get(key, 0.0) for key in chosen]),
        reference_rejected=constant([reference.get(key, 0.0) for key in rejected]),
        chosen_lengths=constant([len(responses[prompt][index].token_ids) for prompt, index in chosen]),
    )


def _rows(parts: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Turn parts of shape (P,) into one dict of numbers per pair."""
    columns = {name: part.detach().double().tolist() for name, part in parts.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _mean_losses(trained: Sequence[tuple[Pair, Mapping[str, float]]], num_prompts: int) -> FloatArray:
    """Mean loss of each prompt's pairs, NaN for a prompt without pairs, shape (B,)."""
    losses: list[list[float]] = [[] for _ in range(num_prompts)]
    for pair, parts in trained:
        losses[pair.prompt].append(sum(parts.values()))
    return np.array([np.mean(row) if row else np.nan for row in losses], dtype=np.float64)


def _mean_parts(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}


def _moments_like(parameter: Tensor, moments: object) -> Tensor:
    tensor = torch.as_tensor(moments)
    if tensor.shape != parameter.shape:
        raise ValueError(f"optimizer state has shape {tuple(tensor.shape)}, the adapter {tuple(parameter.shape)}")
    return tensor.to(device=parameter.device, dtype=parameter.dtype, copy=True)

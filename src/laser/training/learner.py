"""Fine-tuning on the pairs of one batch: micro-batches, gradients, optimizer steps (Algorithm 1, step 4).

A response goes through the policy once, however many pairs it is in: pairs index into the batch's responses.
Micro-batches hold whole prompts, so that a loss over two responses of a prompt never straddles two graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laser.core.errors import TrainingError, diverged
from laser.core.types import FloatArray, Pair, Responses, StateDict
from laser.parallel.memory import is_out_of_memory, let_go
from laser.parallel.ranks import Alone, Ranks
from laser.policy.policy import Policy, Which
from laser.training.losses import Objective, PairLogps
from laser.training.work import TokenIds, Work, collect, group_by_prompt, num_tokens_of, split_by_prompt

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
    """

    losses_B: FloatArray
    parts: dict[str, float]
    grad_norm: float
    num_tokens: int
    num_optimizer_steps: int


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
        max_batch_tokens: Budget of a micro-batch; one prompt is the least that a micro-batch holds. Where memory runs
            out, it is halved, and stays so. None: what suits the device (`laser.lm.footprint`).
        sampled_by_reference: The responses were sampled from the reference, so that its log-probs are those of
            sampling; checked on one prompt a batch, and computed where they differ.
        ranks: The processes of the run; each goes through its share of the prompts, gradients are added up.
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
        self._max_batch_tokens = max_batch_tokens or policy.training_tokens
        self._parameters = list(policy.trainable_parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=learning_rate, betas=(0.9, 0.999), weight_decay=weight_decay, foreach=True
        )
        self._num_steps = 0

    def learn(self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]) -> LearnResult:
        """Train on the pairs of one batch.

        Args:
            prompt_ids: Rendered prompts, B sequences of token ids.
            responses: Responses of each prompt.
            pairs: Oriented pairs; may be empty, and then nothing is trained.

        Raises:
            TrainingError: The loss, its gradient or the weights after a step are not finite.
        """
        trained: list[tuple[Pair, dict[str, float]]] = []
        grad_norms, num_tokens = [0.0], 0
        reference = self._reference_logps(prompt_ids, responses, pairs)
        for _ in range(self._epochs if pairs else 0):
            for chunk in split_by_prompt(pairs, self._optimizer_steps):
                parts, norm, tokens = self._optimizer_step(prompt_ids, responses, chunk, reference)
                trained.extend(zip(chunk, parts, strict=True))
                grad_norms.append(norm)
                num_tokens += tokens
        return _summarise(trained, len(prompt_ids), max(grad_norms), num_tokens, len(grad_norms) - 1)

    def measure(self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]) -> FloatArray:
        """Loss of each prompt's pairs under the policy as it is, without training.

        Returns:
            Shape (B,), in nats; NaN for a prompt without pairs.
        """
        return self.measure_each(prompt_ids, responses, [pairs])[0]

    @torch.no_grad()
    def measure_each(
        self, prompt_ids: Sequence[TokenIds], responses: Responses, pair_sets: Sequence[Sequence[Pair]]
    ) -> list[FloatArray]:
        """`measure` for several sets of pairs over the same responses, each of which goes through the policy once."""
        union = list(dict.fromkeys(pair for pairs in pair_sets for pair in pairs))
        reference = self._reference_logps(prompt_ids, responses, union)
        kl = self._kl(prompt_ids, responses, union)
        work = collect(prompt_ids, responses, union)
        logps = self._logps(work.prompt_ids, work.response_ids, "policy") if union else None
        losses = []
        for pairs in pair_sets:
            measured: list[tuple[Pair, dict[str, float]]] = []
            if pairs and logps is not None:
                parts = self.objective.parts(self._pair_logps(pairs, work, responses, logps, reference), kl)
                measured = list(zip(pairs, _rows(parts), strict=True))
            losses.append(_summarise(measured, len(prompt_ids), 0.0, 0, 0).losses_B)
        return losses

    def state_dict(self) -> StateDict:
        """Moments of the optimizer and the number of steps made."""
        state: StateDict = {"num_steps": self._num_steps}
        for index, parameter in enumerate(self._parameters):
            moments = self._optimizer.state.get(parameter)
            if moments:
                state[f"exp_avg.{index}"] = moments["exp_avg"].cpu().numpy()
                state[f"exp_avg_sq.{index}"] = moments["exp_avg_sq"].cpu().numpy()
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
                "exp_avg": _like(parameter, state[f"exp_avg.{index}"]),
                "exp_avg_sq": _like(parameter, state[f"exp_avg_sq.{index}"]),
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
            done = self._backward_that_fits(prompt_ids, responses, mine, reference, kl, len(pairs))
            return [done, *[([], 0)] * (part.stop - part.start - 1)]

        done = self._ranks.together(go_through, len(groups))
        self._add_gradients()
        parts = [row for rows, _ in done for row in rows]
        parts_of = dict(zip((pair for group in groups for pair in group), parts, strict=True))
        return [parts_of[pair] for pair in pairs], self._apply_gradients(), sum(tokens for _, tokens in done)

    def _backward_that_fits(
        self,
        prompt_ids: Sequence[TokenIds],
        responses: Responses,
        pairs: Sequence[Pair],
        reference: Mapping[tuple[int, int], float],
        kl: Tensor,
        num_pairs: int,
    ) -> tuple[list[dict[str, float]], int]:
        """`_backward`, with micro-batches of half the tokens whenever memory runs out; the half is kept."""
        while True:
            try:
                return self._backward(prompt_ids, responses, pairs, reference, kl, num_pairs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._optimizer.zero_grad(set_to_none=True)
                smallest = min(num_tokens_of(collect(prompt_ids, responses, row)) for row in group_by_prompt(pairs))
                if self._max_batch_tokens <= smallest:
                    raise TrainingError(
                        "the device is out of memory with one prompt's responses in a micro-batch; lower "
                        "generation.num_responses or generation.max_new_tokens, or set "
                        "training.gradient_checkpointing = true, and resume"
                    ) from error
                self._max_batch_tokens //= 2
            let_go()

    def _backward(
        self,
        prompt_ids: Sequence[TokenIds],
        responses: Responses,
        pairs: Sequence[Pair],
        reference: Mapping[tuple[int, int], float],
        kl: Tensor,
        num_pairs: int,
    ) -> tuple[list[dict[str, float]], int]:
        """Accumulate the gradient of the sum of losses over `num_pairs`; returns each pair's parts, and tokens."""
        rows: list[dict[str, float]] = []
        num_tokens = 0
        for micro in self._micro_batches(prompt_ids, responses, pairs):
            work = collect(prompt_ids, responses, micro)
            logps = self.policy.trainable_logps(
                work.prompt_ids, work.response_ids, moment=(self._num_steps, micro[0].prompt)
            )
            parts = self.objective.parts(self._pair_logps(micro, work, responses, logps, reference), kl)
            loss = torch.stack([part.sum() for part in parts.values()]).sum() / num_pairs
            if not torch.isfinite(loss):
                raise diverged(f"the loss became {loss.item()}")
            loss.backward()  # type: ignore[no-untyped-call]
            rows.extend(_rows(parts))
            num_tokens += num_tokens_of(work)
        return rows, num_tokens

    def _add_gradients(self) -> None:
        """Sum the gradients over processes; one without pairs adds zeros."""
        if self._ranks.size == 1:
            return
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._ranks.add([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def _logps(
        self, prompt_ids: Sequence[TokenIds], response_ids: Sequence[Sequence[TokenIds]], which: Which
    ) -> Tensor:
        """`Policy.logps`, flat, each process its share of the prompts."""
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
        # the norm overflows where layers that square what these weights give would
        if not torch.isfinite(torch.nn.utils.get_total_norm(self._parameters)):
            raise diverged("the policy's weights are not finite after an optimizer step, and are not saved")
        return float(norm)

    def _reference_logps(
        self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]
    ) -> dict[tuple[int, int], float]:
        """Reference log-prob of every response in a pair, once per response; empty if the loss needs none."""
        if not (self.objective.needs_reference and pairs):
            return {}
        work = collect(prompt_ids, responses, pairs)
        if self._sampled_by_reference:
            sampled = {(prompt, index): sum(responses[prompt][index].sampling_logps) for prompt, index in work.slots}
            if self._agrees(work, sampled):
                return sampled
        logps = self._logps(work.prompt_ids, work.response_ids, self._reference).tolist()
        return {key: logps[slot] for key, slot in work.slots.items()}

    def _agrees(self, work: Work, sampled: Mapping[tuple[int, int], float]) -> bool:
        """Whether the sampler's log-probs of the first prompt's responses are the reference's, up to rounding."""
        first = [key for key in work.slots if key[0] == work.prompts[0]]
        own = self.policy.logps(work.prompt_ids[:1], work.response_ids[:1], which=self._reference)[0].tolist()
        num_tokens = sum(map(len, work.response_ids[0]))
        gap = sum(abs(value - sampled[key]) for value, key in zip(own, first, strict=True))
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
        work = collect(prompt_ids, responses, pairs)
        if len(work.prompts) < 2:
            return zero
        moved = work.response_ids[1:] + work.response_ids[:1]
        policy = self._logps(work.prompt_ids, moved, "policy")
        reference = self._logps(work.prompt_ids, moved, self._reference)
        return (policy - reference).mean().clamp(min=0)

    def _micro_batches(
        self, prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]
    ) -> Iterator[list[Pair]]:
        """Pairs of whole prompts, up to the token budget."""
        micro: list[Pair] = []
        used = 0
        for of_prompt in group_by_prompt(pairs):
            work = collect(prompt_ids, responses, of_prompt)
            needed = num_tokens_of(work)
            if micro and used + needed > self._max_batch_tokens:
                yield micro
                micro, used = [], 0
            micro = micro + of_prompt
            used += needed
        if micro:
            yield micro

    def _pair_logps(
        self,
        pairs: Sequence[Pair],
        work: Work,
        responses: Responses,
        logps: Tensor,
        reference: Mapping[tuple[int, int], float],
    ) -> PairLogps:
        chosen = [(pair.prompt, pair.chosen) for pair in pairs]
        rejected = [(pair.prompt, pair.rejected) for pair in pairs]

        def constant(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=logps.dtype, device=logps.device)

        return PairLogps(
            policy_chosen=logps[[work.slots[key] for key in chosen]],
            policy_rejected=logps[[work.slots[key] for key in rejected]],
            reference_chosen=constant([reference.get(key, 0.0) for key in chosen]),
            reference_rejected=constant([reference.get(key, 0.0) for key in rejected]),
            chosen_lengths=constant([len(responses[prompt][index].token_ids) for prompt, index in chosen]),
        )


def _rows(parts: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Turn parts of shape (P,) into one dict of numbers per pair."""
    columns = {name: part.detach().double().tolist() for name, part in parts.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _summarise(
    trained: Sequence[tuple[Pair, Mapping[str, float]]],
    num_prompts: int,
    grad_norm: float,
    num_tokens: int,
    num_steps: int,
) -> LearnResult:
    losses: list[list[float]] = [[] for _ in range(num_prompts)]
    for pair, parts in trained:
        losses[pair.prompt].append(sum(parts.values()))
    names = trained[0][1].keys() if trained else ()
    return LearnResult(
        losses_B=np.array([np.mean(row) if row else np.nan for row in losses], dtype=np.float64),
        parts={name: float(np.mean([parts[name] for _, parts in trained])) for name in names},
        grad_norm=grad_norm,
        num_tokens=num_tokens,
        num_optimizer_steps=num_steps,
    )


def _like(parameter: Tensor, moments: object) -> Tensor:
    tensor = torch.as_tensor(moments)
    if tensor.shape != parameter.shape:
        raise ValueError(f"optimizer state has shape {tuple(tensor.shape)}, the adapter {tuple(parameter.shape)}")
    return tensor.to(device=parameter.device, dtype=parameter.dtype)

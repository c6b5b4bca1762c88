"""Cost of a batch: floating-point operations and bytes of every phase, and seconds on a given machine.

Counts, not measurements. A token costs two operations per weight it passes through. Attention costs four per pair of
positions and feature, over whole packed rows as the kernels compute them. A decoding step reads all weights once.
`benchmarks/cost_model.py` measures the share of a machine's peak that real passes reach, and the error of predictions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from laser.lm.footprint import SAMPLED, TRAINED, device_memory
from laser.policy.decoding import choose_decoder
from laser.policy.policy import compute_in_base_precision

_SCORED = 8192  # tokens of a pass without gradient
_FORWARD = 0.75  # share of the measured matmul peak that a forward pass reaches
_TRAIN = 0.70  # the same, forward and backward
_DECODE = 0.60  # the same, one token per row
_START = 4  # passes whose kernels are launched one by one: the prefill, and steps before and while they are captured
_DRAWING = 2  # layers whose kernels take as long to launch as those that draw a step's tokens
_LINK = 0.80  # share of the links between devices that gathering weights reaches; an assumption


@dataclass(frozen=True, slots=True)
class Machine:
    """Speed and memory of a device.

    Attributes:
        name: Its name.
        flops: Operations per second of a large matrix product in the run's precision.
        bandwidth: Bytes per second from the device's memory.
        overhead: Seconds per layer of one pass, whatever its size.
        step_overhead: The same of a decoding step, which a GPU replays as a graph (`laser.policy.decoding`).
        train_overhead: The same of a pass and its backward pass, and of the optimizer's step.
        memory: Bytes; 0: unknown.
        link: Bytes per second that a device receives from the others of its node; 0: unknown.
    """

    name: str
    flops: float
    bandwidth: float
    overhead: float
    step_overhead: float
    train_overhead: float
    memory: float = 0.0
    link: float = 0.0


# Data sheets: dense bfloat16, 80 to 141 GB, NVLink in one direction. What a layer with adapters takes to start is
# measured: on an H100, and its ratio to that of decoding and training steps on an H200 (docs/results/speed.md).
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("a100-80gb", 312e12, 2.04e12, 8e-4, 2e-4, 2.8e-3, 80e9, 300e9),
        Machine("h100-80gb", 989e12, 3.35e12, 8e-4, 2e-4, 2.8e-3, 80e9, 450e9),
        Machine("h200-141gb", 989e12, 4.8e12, 8e-4, 2e-4, 2.8e-3, 141e9, 450e9),
    )
}


@dataclass(frozen=True, slots=True)
class LmShape:
    """Sizes of a causal LM that decide its cost.

    Attributes:
        linear: Weights a token passes through, without the head.
        head: Weights of the head.
        layers: Depth.
        width: Features of all attention heads together.
        kv_width: The same of keys and values, both together.
        bytes_each: Bytes of a weight.
    """

    linear: int
    head: int
    layers: int
    width: int
    kv_width: int
    bytes_each: int

    @property
    def weight_bytes(self) -> int:
        """Bytes that a decoding step reads."""
        return self.bytes_each * (self.linear + self.head)


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Sizes of a batch that decide its cost.

    Attributes:
        prompts: B.
        responses: n.
        pairs: P, trained on.
        prompt_tokens: Length of a prompt.
        response_tokens: Length of a response.
        chunk_tokens: `generation.max_batch_tokens`, as it applies on the device.
        micro_tokens: `training.max_batch_tokens`, likewise.
        needs_reference: Whether reference log-probs take another pass.
        asked: Reward models that score: 1, or K for an ensemble.
        candidates: Pairs drawn and scored; 0: those that are trained on.
    """

    prompts: int
    responses: int
    pairs: int
    prompt_tokens: int
    response_tokens: int
    chunk_tokens: int = SAMPLED
    micro_tokens: int = TRAINED
    needs_reference: bool = True
    asked: int = 1
    candidates: int = 0

    @property
    def needed(self) -> float:
        """Expected number of a prompt's responses in at least one pair that is trained on."""
        return self._in_pairs(self.pairs)

    @property
    def scored(self) -> float:
        """Expected number of a prompt's responses in at least one pair that is drawn."""
        return self._in_pairs(self.candidates or self.pairs)

    def _in_pairs(self, pairs: int) -> float:
        possible = math.comb(self.responses, 2)
        without = math.comb(self.responses - 1, 2)
        if pairs > without:
            return float(self.responses)
        return self.responses * (1 - math.comb(without, pairs) / math.comb(possible, pairs))


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """Cost of one phase of a batch.

    Attributes:
        flops: Floating-point operations.
        num_bytes: Bytes read from the device's memory beyond what the operations hide.
        passes: Passes through a model without gradient, for their overhead.
        layers: Depth of that model.
        share: Share of the peak that its operations reach.
        steps: Decoding steps, likewise.
        trained: Passes with a backward pass, likewise.
    """

    flops: float
    num_bytes: float
    passes: float
    layers: int
    share: float
    steps: float = 0.0
    trained: float = 0.0

    def seconds(self, machine: Machine, arriving: float = 0.0) -> float:
        """Seconds on one device, while `arriving` bytes of layers come from other devices in every pass."""
        work = max(self.flops / (self.share * machine.flops), self.num_bytes / machine.bandwidth)
        # Python gathers layers that come from other devices, so their steps are not graphs.
        started = machine.overhead if arriving else machine.step_overhead
        computing = work + self.layers * (
            self.passes * machine.overhead + self.steps * started + self.trained * machine.train_overhead
        )
        if machine.link == 0:
            return computing
        return max(computing, (self.passes + self.steps + 2 * self.trained) * arriving / (_LINK * machine.link))


def batch_costs(policy: LmShape, reward: LmShape | None, size: BatchSize) -> dict[str, PhaseCost]:
    """Cost of every phase of a batch.

    Args:
        policy: The policy.
        reward: The reward model that scores, or the largest of several; None: it costs nothing here.
        size: The batch.
    """
    b, prompt, response = size.prompts, size.prompt_tokens, size.response_tokens
    row = prompt + size.needed * (response - 1)
    tokens, predicted = b * row, b * size.needed * response

    def forward(lm: LmShape, responses: float) -> PhaseCost:
        row = prompt + responses * (response - 1)
        tokens, predicted = b * row, b * responses * response
        flops = 2 * lm.linear * tokens + 4 * lm.width * lm.layers * row * tokens + 2 * lm.head * predicted
        return PhaseCost(flops, lm.weight_bytes, tokens / _SCORED + 1, lm.layers, _FORWARD)

    costs = {
        "embed": PhaseCost(
            b * prompt * (2 * policy.linear + 4 * policy.width * policy.layers * prompt),
            policy.weight_bytes,
            1,
            policy.layers,
            _FORWARD,
        ),
        "sample": _sampling(policy, size),
    }
    if reward is not None:
        one = forward(reward, size.scored)
        costs["score"] = PhaseCost(
            size.asked * one.flops, size.asked * one.num_bytes, size.asked * one.passes, one.layers, _FORWARD
        )
    if size.needs_reference:
        costs["reference"] = forward(policy, size.needed)
    # Backward: gradients of activations only, the base is frozen; attention's takes twice its forward pass.
    train = 4 * policy.linear * tokens + 12 * policy.width * policy.layers * row * tokens + 4 * policy.head * predicted
    passes = tokens / size.micro_tokens + 1
    costs["train"] = PhaseCost(train, 2 * policy.weight_bytes, 0.0, policy.layers, _TRAIN, trained=passes)
    return costs


def _sampling(lm: LmShape, size: BatchSize) -> PhaseCost:
    """Prefill of every prompt, then one token per row and step, in chunks of the token budget (`SharedPrompts`)."""
    prompt, response, rows = size.prompt_tokens, size.response_tokens, size.prompts * size.responses
    chunks = max(1.0, size.prompts * (prompt + size.responses * response) / size.chunk_tokens)
    context = prompt + response / 2
    prefill = size.prompts * prompt * (2 * lm.linear + 4 * lm.width * lm.layers * prompt)
    decode = rows * response * (2 * lm.linear + 2 * lm.head + 4 * lm.width * lm.layers * context)
    # A step reads the weights, the keys and values of every prompt once, and those of the responses.
    cache = response * (size.prompts * prompt + rows * response / 2) * lm.kv_width * lm.layers * lm.bytes_each
    read = chunks * response * lm.weight_bytes + cache
    steps = chunks * response
    passes = _START * chunks + steps * _DRAWING / lm.layers
    return PhaseCost(prefill + decode, read, passes, lm.layers, _DECODE, steps=steps)


def _tiny_model(device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A tiny Llama with the adapters of a policy, which spends all its time on starting operations."""
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=8, num_attention_heads=1, vocab_size=8, pad_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = LlamaForCausalLM(config)
        nn.Module.to(model, device=device, dtype=dtype)
        get_peft_model(model, LoraConfig(r=1, target_modules="all-linear"))
    compute_in_base_precision(model)
    return model


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure this machine: a large matrix product, a pass over memory, and layers that compute almost nothing."""

    def best(work: Callable[[], object], repeats: int = 5) -> float:
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return min(times)

    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    flops = 2 * size**3 / best(lambda: a @ b)
    large = torch.ones(2**26, device=device, dtype=torch.float32)
    bandwidth = large.numel() * 4 / best(lambda: large.sum())
    tiny = _tiny_model(device, dtype)
    layers = tiny.config.num_hidden_layers
    token = torch.zeros((1, 1), device=device, dtype=torch.long)
    weights = [weight for weight in tiny.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.0)

    def train() -> None:
        tiny(input_ids=token, use_cache=False).logits.float().sum().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    trained = best(train)
    with torch.no_grad():
        passed = best(lambda: tiny(input_ids=token, use_cache=False))
        decoder = choose_decoder(tiny)(tiny, [[0]], 1, 16)
        decoder.start()
        stepped = best(lambda: decoder.advance(token[0], token[0]), repeats=10)
    return Machine(
        "this machine", flops, bandwidth, passed / layers, stepped / layers, trained / layers, device_memory(device)
    )

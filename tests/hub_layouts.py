"""Tiny random checkpoints in the layouts of the hub's reward models: config.json, tokenizer and named safetensors."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import DebertaV2Config, DebertaV2Model, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

LLAMA3_SPECIAL = [
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>", "<|cls|>", "<|unk|>",
]  # fmt: skip
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
PAIRRM_SPECIAL = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"]
HIDDEN = 32


def _characters(special, frame, **options):
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: index for index, token in enumerate([*special, *characters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=options["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    marks = [(token, vocabulary[token]) for token in frame.split() if token in vocabulary]
    backend.post_processor = processors.TemplateProcessing(single=frame, special_tokens=marks)
    extra = [token for token in special if token not in options.values()]
    return PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=extra, **options)


def llama3_tokenizer(chat_template=LLAMA3_TEMPLATE):
    """Characters between Llama 3's control tokens; like Llama 3's, it adds BOS and its template writes one too."""
    tokenizer = _characters(
        LLAMA3_SPECIAL,
        "<|begin_of_text|> $A",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|pad|>",
        cls_token="<|cls|>",
        unk_token="<|unk|>",
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def pairrm_tokenizer():
    """Characters between [CLS] and [SEP], with the tokens that introduce prompt and candidates."""
    return _characters(
        PAIRRM_SPECIAL, "[CLS] $A [SEP]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


def llama_config(**options):
    return LlamaConfig(
        vocab_size=110, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=options.pop("window", 256), bos_token_id=0, eos_token_id=3,
        pad_token_id=4, **options,
    )  # fmt: skip


def llama_backbone(seed=0, config=None):
    """A random Llama without a head, far from uniform."""
    return _random(LlamaModel, config or llama_config(), seed)


def deberta_backbone(seed=0):
    config = DebertaV2Config(
        vocab_size=110, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16, max_relative_positions=-1,
        position_biased_input=False, type_vocab_size=0, max_position_embeddings=64, pad_token_id=2,
    )  # fmt: skip
    return _random(DebertaV2Model, config, seed)


def _random(kind, config, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model


def random_tensors(shapes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def save_checkpoint(folder, backbone, head, architecture, *, prefix="model.", tokenizer=None, config=None):
    """Write a checkpoint as its authors would have: backbone under a prefix, head tensors under their names."""
    folder = Path(folder)
    backbone.config.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    settings.update({"architectures": [architecture], **(config or {})})
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = {prefix + name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    save_file({**tensors, **head}, folder / "model.safetensors", metadata={"format": "pt"})
    (tokenizer or llama3_tokenizer()).save_pretrained(folder)
    return str(folder)

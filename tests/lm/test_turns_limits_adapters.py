"""The end of a turn, windows, vocabularies and adapters, as the model itself says."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
)

from laser.core.errors import ModelError
from laser.core.types import Prompt
from laser.lm.chat import encode_prompt, end_of_turn
from laser.lm.limits import check_vocabulary, window_of
from laser.lm.sources import fingerprint, load_causal_lm, load_classifier, load_model_config, load_tokenizer
from laser.policy.policy import Policy
from laser.rewards.similarity import SimilarityRM
from tiny import TEMPLATE, make_model, make_tokenizer

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


@pytest.mark.parametrize(
    ("behind", "token"),
    [
        ("<end_of_turn>\n", "<end_of_turn>"),
        (" <|eot_id|>", "<|eot_id|>"),
        ("<|end|>\n{% if loop.last %}{{ eos_token }}{% endif %}", "<|end|>"),
        ("{{ eos_token }}", "<|im_end|>"),
        ("\n", "<|im_end|>"),  # the template ends turns with no token: EOS
    ],
)
def test_the_end_of_a_turn_is_what_the_template_puts_behind_the_answer(behind, token):
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}" + behind + "{% endfor %}"
    tokenizer = make_tokenizer(chat_template=template)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<end_of_turn>", "<|eot_id|>", "<|end|>"]})
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == token


def test_a_template_that_refuses_the_conversation_and_no_template_leave_eos():
    for template in (None, "{{ raise_exception('no') }}"):
        tokenizer = make_tokenizer(chat_template=template)
        assert end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_a_spelled_control_token_changes_nothing_else_of_the_rendering():
    content = "{% if 'x' in m['content'] %}!{% endif %}{{ m['content'].split('THINK')[-1] | trim }}"
    tokenizer = make_tokenizer(chat_template=TEMPLATE.replace("{{ m['content'] }}", content))

    def shown(text):
        ids = encode_prompt(tokenizer, ({"role": "user", "content": text},))
        return tokenizer.decode(ids), ids

    for plain in ("x THINK answer TOKEN  ", " TOKEN", "a\ue0000\ue001 TOKEN x"):
        expected, _ = shown(plain)
        text, ids = shown(plain.replace("TOKEN", "<|im_end|>"))
        assert text == expected.replace("TOKEN", "<|im_end|>")
        assert ids.count(tokenizer.eos_token_id) == 1


def test_windows_leave_out_the_positions_behind_the_padding():
    assert window_of(RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512
    assert window_of(AutoConfig.for_model("xlm-roberta", max_position_embeddings=514)) == 512
    assert window_of(LlamaConfig(max_position_embeddings=64)) == 64


def test_a_text_of_the_whole_table_is_too_long_for_mpnet():
    tokenizer = make_tokenizer(chat_template=None)
    config = MPNetConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=18,
    )
    rm = SimilarityRM(MPNetModel(config).eval(), tokenizer)
    prompt = Prompt("0", ({"role": "user", "content": "a"},))
    texts = ["b" * length for length in (15, 16, 17, 18)]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert np.isfinite(rm.score([prompt], [texts])[0]).tolist() == [length <= 16 for length in lengths]
    assert max(lengths) > 16 >= min(lengths)


def test_a_tokenizer_that_gives_ids_beyond_the_embedding_is_refused():
    tokenizer = make_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer))
    check_vocabulary(tokenizer, config, "m")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    check_vocabulary(tokenizer, config, "m")  # neither a text nor the template can give it
    tokenizer.chat_template = TEMPLATE.replace("<|im_start|>", "<image>")
    with pytest.raises(ModelError, match=r"the tokenizer of m .*'<image>'.*resize_token_embeddings"):
        check_vocabulary(tokenizer, config, "m")
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_tokens(["word"])
    with pytest.raises(ModelError, match="'word'"):
        check_vocabulary(tokenizer, config, "m")


def save_adapter(folder, base, kind, **options):
    """An adapter with weights that are not zero; returns the adapted model."""
    torch.manual_seed(1)
    adapted = get_peft_model(kind.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear", **options))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.fixture
def base(tmp_path):
    make_model().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


IDS = torch.arange(5, 12)[None]


def test_an_adapter_folder_and_a_run_directory_are_models(base, tmp_path):
    run = tmp_path / "run"
    adapted = save_adapter(run / "adapter", base, LlamaForCausalLM, task_type="CAUSAL_LM")
    (run / "config.json").write_text("{}")
    for source in (run / "adapter", run):
        model = load_causal_lm(str(source), **CPU)
        torch.testing.assert_close(model(IDS).logits, adapted(IDS).logits, atol=1e-5, rtol=1e-4)
        assert load_tokenizer(str(source)).eos_token == "<|im_end|>"
    assert fingerprint(str(run)).startswith("adapter:")
    before = fingerprint(str(run))
    make_model(seed=7).save_pretrained(base)
    assert fingerprint(str(run)) != before


def test_an_adapter_with_its_score_head_is_a_classifier(base, tmp_path, monkeypatch):
    """As TRL's RewardTrainer writes it: the base is a language model, named relative to the folder above."""
    head = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    monkeypatch.chdir(tmp_path)

    class OneOutput(LlamaForSequenceClassification):
        @classmethod
        def from_pretrained(cls, source):
            return LlamaForSequenceClassification.from_pretrained("base", num_labels=1, pad_token_id=0)

    adapted = save_adapter(tmp_path / "rm", "base", OneOutput, **head)
    monkeypatch.chdir("/")
    model = load_classifier(str(tmp_path / "rm"), **CPU)
    model.config.pad_token_id = 0
    torch.testing.assert_close(model(IDS).logits, adapted(IDS).logits, atol=1e-5, rtol=1e-4)
    config = load_model_config(str(tmp_path / "rm"))
    assert config.architectures == ["LlamaForSequenceClassification"]
    assert config.num_labels == 1


def test_an_adapter_of_another_model_is_an_error(base, tmp_path):
    save_adapter(tmp_path / "adapter", base, LlamaForCausalLM, task_type="CAUSAL_LM")
    config = LlamaConfig(**{**make_model().config.to_dict(), "num_hidden_layers": 1})
    LlamaForCausalLM(config).save_pretrained(base)
    with pytest.raises(ModelError, match="does not fit its base"):
        load_causal_lm(str(tmp_path / "adapter"), **CPU)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        load_causal_lm(str(tmp_path / "adapter"), **CPU)


def test_target_modules_that_are_not_a_regular_expression_are_an_error():
    with pytest.raises(ModelError, match=r"target_modules = '\(q_proj' is not a regular expression"):
        Policy(make_model(), make_tokenizer(), target_modules="(q_proj")

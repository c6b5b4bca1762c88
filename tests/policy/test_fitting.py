"""Prompts beyond the window are cut in the middle, and counted."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from laser import train
from laser.commands.best_of_n import best_of_n
from laser.commands.evaluate import evaluate
from laser.config import parse_config
from laser.core.errors import DataError
from laser.policy.fitting import cut_middle
from laser.policy.policy import Policy
from laser.wiring.fitting import fit_prompts
from runs import make_table
from tiny import make_model, make_prompt, make_tokenizer

POLICY = Policy(make_model(context=200), make_tokenizer(), lora_rank=2)


def length(prompt):
    return len(POLICY.encode([prompt])[0])


def test_head_and_tail_stay_and_the_middle_goes():
    text = "INSTRUCTION " + "".join(f"{i:04d} " for i in range(200)) + "QUESTION?"
    fitted = cut_middle(POLICY, [make_prompt(text), make_prompt("short")], 20)
    cut, short = fitted.prompts
    assert length(cut) == 180
    assert cut.text.startswith("INSTRUCTION 0000 ")
    assert cut.text.endswith("0199 QUESTION?")
    assert "0100" not in cut.text
    assert short == make_prompt("short")
    assert (fitted.num_cut, fitted.num_tokens) == (1, len(text) - len(cut.text))
    assert cut.metadata == {"cut_tokens": fitted.num_tokens}
    half = len(cut.text) // 2
    assert text.startswith(cut.text[: len(cut.text) - half])
    assert text.endswith(cut.text[-half:])
    POLICY.check_fits(fitted.prompts, 20)


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=600), st.integers(1, 100))
def test_whatever_the_text_it_fits_or_is_refused(text, room):
    prompt = make_prompt(text)
    fitted = cut_middle(POLICY, [prompt], room).prompts[0]
    if length(prompt) <= 200 - room:
        assert fitted == prompt
    else:
        assert length(fitted) <= 200 - room
        assert length(fitted) > 200 - room - 10


def test_a_joint_that_makes_new_tokens_is_cut_further():
    """ "a" and "bcd" are a token each, but "abcd", which the cut makes, is three: "ab", "c", "d"."""
    merges = [("a", "b"), ("b", "c"), ("bc", "d")]
    plain = make_tokenizer()
    vocabulary = plain.get_vocab() | {"ab": 99, "bc": 100, "bcd": 101}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>")
    plain.backend_tokenizer.model = model
    plain.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    policy = Policy(make_model(context=200, vocab_size=102), plain, lora_rank=2)
    fitted = cut_middle(policy, [make_prompt("a" * 200 + " " + "bcd" * 200)], 20).prompts[0]
    assert "abcd" in fitted.text
    assert len(policy.encode([fitted])[0]) in (179, 180)


def test_a_long_conversation_with_a_short_last_message_is_refused():
    messages = ({"role": "user", "content": "x" * 300}, {"role": "assistant", "content": "y"})
    prompt = make_prompt("why?", id="long")
    prompt = type(prompt)("long", (*messages, *prompt.messages))
    with pytest.raises(DataError, match=r"prompt 'long' has 3\d\d tokens and leaves no room"):
        POLICY.check_fits(cut_middle(POLICY, [prompt], 20).prompts, 20)


def test_refusing_is_the_default(tmp_path):
    config = parse_config(make_table(tmp_path, "vowels"))
    with pytest.raises(DataError, match="leaves no room for 20 new ones"):
        fit_prompts(config, POLICY, [make_prompt("x" * 400)], 20)
    config = parse_config(make_table(tmp_path, "vowels", policy={"overlong": "cut_middle"}))
    assert fit_prompts(config, POLICY, [make_prompt("x" * 400)], 20).num_cut == 1


@pytest.mark.slow
def test_a_run_on_long_documents_counts_what_it_cut(tmp_path):
    rows = [
        {"input": f"{i}?", "context": f"{i} " + "long " * (200 if i % 2 else 2), "answers": [str(i)]} for i in range(16)
    ]
    (tmp_path / "qasper.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = make_table(tmp_path, "vowels")
    data = {
        "type": "task",
        "name": "longbench_single_doc_qa",
        "path": str(tmp_path / "qasper.jsonl"),
        "template": "Read: {context} Answer: {input}",
    }
    split = {"train": 8, "dev": 4, "test": 4}
    table = {**table, "data": data, "split": split, "signal": {"type": "probe", "prompts_per_category": 1}}
    table["training"] = {**table["training"], "iterations": 1}
    result = train(table, tmp_path / "run")
    record = json.loads((result.path / "run.json").read_text())["prompts"]
    assert (record["dev"], record["test"], record["train"] + record["probe"]) == (4, 4, 8)
    assert 0 < record["cut_in_the_middle"] <= 12
    assert record["tokens_cut"] > 500 * record["cut_in_the_middle"] / 2


@pytest.mark.slow
def test_best_of_n_and_evaluation_cut_the_same_documents(tmp_path):
    rows = [{"input": f"{i}?", "context": "long " * 200, "answers": ["a", "b"]} for i in range(8)]
    (tmp_path / "hotpotqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"type": "task", "name": "longbench_multi_doc_qa", "path": str(tmp_path), "categories": ["hotpotqa"]}
    table = {**make_table(tmp_path, "vowels"), "data": data, "split": {"train": 4, "dev": 0, "test": 4}}
    config = parse_config(table)
    notes = []
    results = best_of_n(config, tmp_path / "bon", {"configured": config}, note=notes.append)
    assert 0 <= results["configured"].value <= 1
    assert sum("prompts cut in the middle to fit" in note for note in notes) == 2
    (tmp_path / "run.toml").write_text(
        f'''
seed = 3
data = {{type = "task", name = "longbench_multi_doc_qa", path = "{tmp_path}", categories = ["hotpotqa"]}}
split = {{train = 4, dev = 0, test = 4}}
policy = {{model = "{tmp_path}/base", max_context = 450}}
generation = {{max_new_tokens = 6}}
[[rewards.models]]
type = "function"
name = "vowels"
function = "scores.py:vowels"
'''
    )
    notes.clear()
    found = evaluate([tmp_path / "run.toml"], split="test", note=notes.append)
    assert any("4 prompts cut in the middle" in note for note in notes)
    assert found.metric == "f1"
    assert next(iter(found.measured.values())).unreadable.num == 0


def test_a_run_without_training_prompts_says_so(tmp_path):
    table = make_table(tmp_path, "vowels", split={"train": 0, "dev": 4})
    with pytest.raises(DataError, match=r"no training prompts; set split\.train"):
        train(table, tmp_path / "run")

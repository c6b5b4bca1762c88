"""Fine-tuning on gold answers: its targets, that it learns, resumes to the same result, and can be trained on."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import laser
from laser.analysis.report import write_report
from laser.core.errors import ConfigError, DataError, RunDirectoryError, StoppedError
from laser.lm.sources import load_causal_lm
from laser.policy.policy import Policy
from laser.training.sft import make_targets, target_text
from processes import FORKS
from runs import Notes, adapter, make_table, same_adapter
from tiny import make_model, make_prompt, make_tokenizer

SFT = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2}
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
IDS = torch.arange(5, 12)[None]


def table_of(folder, **sections):
    return make_table(folder, "short", sft=SFT, **sections)


def losses(path):
    return [json.loads(line)["loss"] for line in (Path(path) / "losses.jsonl").read_text().splitlines()]


def with_solution(answer, solution):
    prompt = make_prompt("q", answer=answer)
    return type(prompt)(**{name: getattr(prompt, name) for name in prompt.__slots__} | {"metadata": solution})


@pytest.mark.parametrize(
    ("answer", "metadata", "whole", "expected"),
    [
        ("18", {"solution": "9 * 2 = 18"}, False, "9 * 2 = 18\nFinal answer: 18"),
        ("18", {}, False, "Final answer: 18"),
        (None, {"solution": " 9 * 2 = 18 "}, False, "9 * 2 = 18"),
        ("18", {"solution": "9 * 2 = 18"}, True, "18"),
        (None, {"solution": "a summary"}, True, "a summary"),
        (None, {}, False, None),
        (None, {"solution": " "}, True, None),
    ],
)
def test_the_target_is_the_solution_and_the_answer_line(answer, metadata, whole, expected):
    assert target_text(with_solution(answer, metadata), whole=whole) == expected


def test_a_target_ends_its_turn_and_fits_with_its_prompt():
    policy = Policy(make_model(context=64), make_tokenizer(), lora_rank=2)
    prompts = [make_prompt("hi", answer="7"), make_prompt("no answer"), make_prompt("x" * 60, id="long", answer="7")]
    with pytest.raises(DataError, match=r"'long' and its target have \d+ tokens, more than the context of 64"):
        make_targets(policy, prompts, whole=False, cut=False)
    kept, targets = make_targets(policy, prompts, whole=False, cut=True)
    assert [len(prompt.text) for prompt in kept] == [2, kept[1].metadata["cut_tokens"] and len(kept[1].text)]
    assert all(one.token_ids[-1] == policy.tokenizer.eos_token_id for one in targets)
    assert [one.text for one in targets] == ["Final answer: 7"] * 2
    assert len(policy.encode([kept[1]])[0]) + len(targets[1].token_ids) <= 64


@pytest.mark.slow
def test_the_loss_falls_and_the_adapter_is_a_peft_adapter_that_a_run_can_start_from(tmp_path):
    table = table_of(tmp_path, split={"train": 12, "dev": 4})
    result = laser.sft(table, tmp_path / "sft")
    found = losses(result.path)
    assert len(found) == 2 * 3
    assert found[-1] < 0.8 * found[0]
    assert result.summary.metric_before is not None
    assert result.summary.metric_after is not None
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tuned = PeftModel.from_pretrained(base, result.adapter).eval()(IDS).logits
    torch.testing.assert_close(load_causal_lm(str(result.path), **CPU)(IDS).logits, tuned, atol=1e-4, rtol=1e-3)

    started = {**table, "policy": {**table["policy"], "model": str(result.path)}}
    trained = laser.train({**started, "split": {"train": 12, "dev": 0}}, tmp_path / "run")
    config = json.loads((trained.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(result.adapter)  # not the base: there it would mean another model
    again = load_causal_lm(str(trained.path), **CPU)
    whole = PeftModel.from_pretrained(load_causal_lm(str(result.path), **CPU), trained.adapter).eval()
    torch.testing.assert_close(again(IDS).logits, whole(IDS).logits, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(again(IDS).logits, tuned, atol=1e-3)


class Killer(Notes):
    """Kills its own process when a phase begins for the count-th time."""

    def __init__(self, phase, count):
        super().__init__()
        self._phase, self._left = phase, count

    def phase(self, name, *, iteration, step):
        if name == self._phase:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def fine_tune(table, path, resumes, phase, count):
    progress = Killer(phase, count)
    if resumes:
        laser.resume_sft(path, progress=progress)
    else:
        laser.sft(table, path, progress=progress)


@pytest.mark.slow
def test_killed_again_and_again_it_comes_out_the_same(tmp_path):
    table = table_of(tmp_path, checkpoint={"every": 2}, policy={"lora": {"rank": 4, "dropout": 0.1}})
    laser.sft(table, tmp_path / "whole")
    killed = [(False, "train", 4), (True, "checkpoint", 1), (True, "evaluate", 1), (True, "train", 1)]
    for resumes, phase, count in killed:
        process = FORKS.Process(target=fine_tune, args=(table, tmp_path / "killed", resumes, phase, count))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    laser.resume_sft(tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert same_adapter(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_it_stops_when_asked_and_only_its_own_command_continues_it(tmp_path):
    table = table_of(tmp_path, split={"train": 8, "dev": 0})
    asked = iter([False, True])
    with pytest.raises(StoppedError, match="stopped after 2 batches"):
        laser.sft(table, tmp_path / "sft", stop=lambda: next(asked))
    with pytest.raises(RunDirectoryError, match=r"was started by laser sft; continue it with: laser sft --resume"):
        laser.resume(tmp_path / "sft")
    with pytest.raises(ConfigError, match=r"sft\.epochs"):
        laser.resume_sft(tmp_path / "sft", config=laser.parse_config({**table, "sft": {**SFT, "epochs": 5}}))
    laser.resume_sft(tmp_path / "sft")
    with pytest.raises(RunDirectoryError, match=r"is of laser sft, which has no report; read its losses\.jsonl"):
        write_report(tmp_path / "sft")
    assert len(losses(tmp_path / "sft")) == 4
    assert adapter(tmp_path / "sft")


@pytest.mark.slow
def test_prompts_without_an_answer_are_counted_and_refused_if_none_has_one(tmp_path):
    rows = [{"prompt": "one", "answer": "1"}, {"prompt": "two"}, {"prompt": "three", "solution": "by counting"}]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "none.jsonl").write_text(json.dumps({"prompt": "two"}) + "\n")
    data = {"type": "file", "train": str(tmp_path / "some.jsonl")}
    table = table_of(tmp_path, split={"train": None, "dev": 0}) | {"data": data}
    progress = Notes()
    laser.sft(table, tmp_path / "sft", progress=progress)
    assert any("1 of 3 training prompts have neither a gold answer nor a solution" in note for note in progress.notes)
    assert json.loads((tmp_path / "sft" / "summary.json").read_text())["without_answer"] == 1
    with pytest.raises(DataError, match="none of the 1 training prompts has a gold answer or a solution"):
        laser.sft({**table, "data": {**data, "train": str(tmp_path / "none.jsonl")}}, tmp_path / "none")
    assert not (tmp_path / "none").exists()

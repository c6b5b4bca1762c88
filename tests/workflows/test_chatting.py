"""`laser chat` on a tiny run: what the policy says, who picks, and what a terminal gets to see."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import laser
from laser.cli import main as cli
from laser.cli.chat import readable
from laser.commands.chat import Chat, before_and_after
from laser.config import parse_config
from laser.core.errors import ConfigError, DataError, RunDirectoryError
from laser.core.types import Prompt
from laser.wiring import build_contexts
from laser.wiring.trained import build_frozen, build_trained_policy
from runs import make_table

LONG = ["generation.max_new_tokens=20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    table = make_table(
        folder,
        "vowels",
        "short",
        training={"learning_rate": 0.05, "iterations": 1, "batches_per_iteration": 4},
        policy={"system_prompt": "be brief"},
        context={"normalization": "unit"},
    )
    laser.train(table, folder / "run")
    return folder / "run"


def config_of(run):
    return parse_config(json.loads((run / "config.json").read_text()))


@pytest.mark.slow
def test_a_reply_streams_and_the_conversation_grows(run):
    heard = []
    chat = Chat(run, overrides=LONG, on_text=heard.append)
    first, second = chat.say("hello"), chat.say("and now?")
    assert heard[0] == first.text[: len(heard[0])]
    assert first.text in heard
    assert second.text in heard
    assert first.candidates == (first.text,)
    assert (first.scores, first.arms) == ((), ())
    chat.reset()
    fresh = Chat(run, overrides=LONG)
    assert fresh.say("hello").text == first.text
    assert [len(message["content"]) > 0 for message in fresh._messages] == [True, True]


@pytest.mark.slow
def test_it_is_the_trained_policy_under_its_system_prompt(run):
    """The greedy reply is the greedy response of the trained weights to the conversation so far."""
    config = config_of(run)
    chat = Chat(run, overrides=["generation.temperature=1e-9", "generation.max_new_tokens=6"])
    turns = [chat.say("one"), chat.say("two")]
    policy = build_trained_policy(config, run)
    messages = [{"role": "user", "content": "one"}]
    for turn, following in zip(turns, ("two", ""), strict=True):
        ids = policy.encode([Prompt("p", tuple(messages))])[0]
        assert policy.tokenizer.decode(ids).startswith("<|im_start|>system be brief<|im_end|>")
        expected = laser.wiring.TransformersGenerator(policy).generate(
            [Prompt("p", tuple(messages))], num_responses=1, temperature=0, top_p=1.0, max_new_tokens=6, seeds=[0]
        )
        assert turn.text == expected[0][0].text
        messages += [{"role": "assistant", "content": turn.text}, {"role": "user", "content": following}]


def test_the_selectors_reward_model_picks_and_says_why(run):
    chat = Chat(run, best_of=5, overrides=LONG)
    turn = chat.say("hello")
    assert len(turn.candidates) == len(turn.scores) == 5
    assert turn.text == turn.candidates[turn.picked]
    assert turn.scores[turn.picked] == max(turn.scores)
    assert [one.name for one in turn.arms] == ["likelihood", "vowels", "short"]
    (chosen,) = [one for one in turn.arms if one.weight]
    best = max(one.value for one in turn.arms)
    assert chosen.value == best
    assert sum(one.probability for one in turn.arms) == pytest.approx(1)
    by_hand = {
        "vowels": [sum(c in "aeiou" for c in text) - 0.01 * len(text) for text in turn.candidates],
        "short": [-len(text) for text in turn.candidates],
    }
    if chosen.name in by_hand:
        assert turn.scores == pytest.approx(by_hand[chosen.name])


def test_the_choice_is_the_frozen_selectors_and_does_not_drift(run):
    """Values as the run's own selector gives them, and the same for the same words after other conversations."""
    config = config_of(run)
    chat = Chat(run, best_of=2)
    turn = chat.say("hello")
    policy = build_trained_policy(config, run)
    contexts, selector = build_frozen(config, run, policy.context_dim)
    prompt = Prompt("p", ({"role": "user", "content": "hello"},))
    values = selector.select(contexts(policy.embed([prompt]))).values_MK[0]
    assert [one.value for one in turn.arms] == pytest.approx(values, abs=1e-6)
    untaught = build_contexts(config, dim=policy.context_dim)(policy.embed([prompt]))
    assert not np.allclose(untaught, contexts(policy.embed([prompt])))
    chat.reset()
    chat.say("something else entirely")
    chat.reset()
    assert chat.say("hello").arms == turn.arms


def test_a_reward_model_can_be_forced(run):
    turn = Chat(run, best_of=4, reward_model="short", overrides=LONG).say("hello")
    assert [(one.name, one.weight, one.probability) for one in turn.arms] == [("short", 1.0, None)]
    assert list(turn.scores) == [-len(text) for text in turn.candidates]
    with pytest.raises(ConfigError, match="choose likelihood, vowels, short"):
        Chat(run, best_of=4, reward_model="shorter")
    with pytest.raises(ConfigError, match="add --best-of"):
        Chat(run, reward_model="short")


def test_a_reward_model_that_fails_is_left_out_and_the_next_asked(run, tmp_path):
    chosen = next(one.name for one in Chat(run, best_of=2).say("hello").arms if one.weight)
    broken = tmp_path / "broken.py"
    broken.write_text("def fails(prompts, responses):\n    raise OSError('gone')\n")
    models = json.loads((run / "config.json").read_text())["rewards"]["models"]
    failing = {"type": "function", "name": chosen, "function": f"{broken}:fails"}
    pool = ", ".join(
        "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in one.items() if v is not None) + "}"
        for one in [failing if one["name"] == chosen else one for one in models]
    )
    turn = Chat(run, best_of=2, overrides=[f"rewards.models=[{pool}]"]).say("hello")
    assert "gone" in turn.notes[0]
    assert next(one.name for one in turn.arms if one.weight) != chosen
    assert np.isfinite(turn.scores).all()
    forced = Chat(run, best_of=2, reward_model=chosen, overrides=[f"rewards.models=[{pool}]"]).say("hello")
    assert forced.picked == 0
    assert np.isnan(forced.scores).all()


@pytest.mark.slow
@pytest.mark.parametrize("selector", [{"type": "fixed", "arm": "short"}, {"type": "ensemble"}, {"type": "random"}])
def test_every_kind_of_selector_can_pick(run, tmp_path, selector):
    table = make_table(run.parent, "vowels", "short", training={"iterations": 1, "batches_per_iteration": 1})
    laser.train({**table, "selector": selector}, tmp_path / "run")
    turn = Chat(tmp_path / "run", best_of=3, overrides=LONG).say("hello")
    weights = [one.weight for one in turn.arms]
    assert sum(weights) == pytest.approx(1)
    assert turn.scores[turn.picked] == max(turn.scores)


def test_what_cannot_be_talked_to(run, tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        Chat(tmp_path)
    chat = Chat(run)
    with pytest.raises(DataError, match="leaves no room"):
        chat.say("long " * 200)
    assert chat.say("short").text is not None


SEQUENCES = [
    ("plain\ttext\n", "plain\ttext\n"),
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b]0;title\x07after", "after"),
    ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x9b2Jgone\x1bcreset", "gonereset"),
    ("never\x1b]0;ends\nbut the line does", "never\nbut the line does"),
    ("dos\r\nline", "dos\nline"),
    ("ring\x07", "ring\ufffd"),
    ("rtl\u202etxt", "rtl\ufffdtxt"),
]


@pytest.mark.parametrize(("text", "shown"), SEQUENCES)
def test_control_sequences_are_left_out_as_the_text_grows(text, shown):
    assert readable(text) == shown
    for end in range(len(text)):
        assert shown.startswith(readable(text[:end])), text[:end]


def laser_main(monkeypatch, capsys, *arguments, stdin=None):
    monkeypatch.setattr(sys, "argv", ["laser", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin or ""))
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_one_question_answers_to_standard_output_alone(run, monkeypatch, capsys):
    code, out, _ = laser_main(monkeypatch, capsys, "chat", run, "--once", "hello", "--set", LONG[0])
    assert (code, out) == (0, readable(Chat(run, overrides=LONG).say("hello").text) + "\n")
    code, again, err = laser_main(
        monkeypatch, capsys, "chat", run, "--once", "-", "--set", LONG[0], "--best-of", 3, stdin="hello"
    )
    turn = Chat(run, overrides=LONG, best_of=3).say("hello")
    assert (code, again) == (0, readable(turn.text) + "\n")
    for words in ("Who picked", "likelihood", "vowels", "probability", "The best of 3", f"{turn.scores[0]:.4g}"):
        assert words in err


def test_a_pipe_is_a_conversation_of_lines(run, monkeypatch, capsys):
    code, out, _ = laser_main(monkeypatch, capsys, "chat", run, stdin="hello\n\nagain\n/reset\nagain\n/quit\nno\n")
    chat = Chat(run)
    expected = [chat.say("hello").text, chat.say("again").text]
    chat.reset()
    expected.append(chat.say("again").text)
    assert code == 0
    assert out == "".join(readable(text) + "\n" for text in expected)


def test_mistakes_are_a_sentence(run, monkeypatch, capsys):
    code, _, err = laser_main(monkeypatch, capsys, "chat", run.parent, "--once", "x")
    assert (code, "holds no run" in " ".join(err.split())) == (2, True)
    code, _, err = laser_main(monkeypatch, capsys, "chat", run, "--once", "x " * 400)
    assert (code, "leaves no room" in " ".join(err.split())) == (2, True)


@pytest.mark.slow
def test_on_a_terminal_commands_mistakes_and_ctrl_c(run):
    """A real pseudo-terminal: a question, an unknown command, a reset, then Ctrl-C in the middle of the next line."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "laser.cli.main", "chat", str(run), "--set", "generation.max_new_tokens=4"]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    seen = ""

    def until(words):
        nonlocal seen
        deadline = time.monotonic() + 90
        while words not in seen:
            assert time.monotonic() < deadline, seen
            try:
                seen += os.read(ours, 4096).decode(errors="replace")
            except OSError:
                return

    until("you> ")
    os.write(ours, b"hello\n")
    until("max_new_tokens")
    os.write(ours, b"/what\n")
    until("no such command")
    os.write(ours, b"/reset\n")
    until("a new conversation\r\n")
    process.send_signal(signal.SIGINT)
    until("bye")
    assert process.wait(timeout=30) == 0
    assert "Traceback" not in seen
    os.close(ours)


@pytest.mark.slow
def test_answers_before_and_after_are_those_of_the_dev_checks(run, monkeypatch, capsys):
    """The base's and the trained policy's, as `laser eval --base` samples them, the first prompt of each category."""
    shown = before_and_after(run, 3)
    responses = laser.evaluate(run, base=True).answers.responses
    first = {one.prompt.id: (one.text, other.text) for one, other in zip(*responses.values(), strict=True)}
    assert [first[one.prompt.id] for one in shown] == [(one.before, one.after) for one in shown]
    assert any(one.before != one.after for one in shown)
    assert len({one.prompt.category for one in shown}) == 3
    code, out, _ = laser_main(monkeypatch, capsys, "chat", run, "--before-after", 1)
    assert code == 0
    assert f"{shown[0].prompt.category}: {shown[0].prompt.text}   (gold answer: {shown[0].prompt.answer})" in out
    assert [line.split()[:2] for line in out.splitlines()[-2:]] == [["before", "wrong"], ["after", "wrong"]]
    code, _, err = laser_main(monkeypatch, capsys, "chat", run, "--before-after", 1, "--best-of", 2)
    assert code == 2
    assert "drop the other options" in err

"""What models, data sets and servers wrote reaches the terminal as text: no escape sequence, no mark of direction."""

import ast
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from laser.cli.chat import readable
from laser.cli.progress import LiveProgress, PlainProgress
from laser.cli.terminal import SafeConsole, make_console, plain, say
from laser.training.findings import Finding, Findings

SOURCE = Path(__file__).parents[2] / "src" / "laser"
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\x08\r\x00red\u202eder\u2066\x7f\ud800"
OBEYED = set("\x1b\x07\x9b\x08\r\x00\u202e\u2066\x7f\ud800")


def record(text):
    return {
        "iteration": 0,
        "step": 0,
        "category": text,
        "selection": {"reward_models": [text], "weights": [[1.0]]},
        "bandit_rewards": [0.5],
        "loss": 0.1,
        "pairs": 3,
        "seconds": {"train": 1.0},
    }


@given(st.text(st.characters()))
def test_plain_text_has_nothing_to_obey_and_loses_no_length(text):
    shown = plain(text)
    assert len(shown) == len(text)
    shown.encode()
    assert all(character in "\n\t" or character >= " " for character in shown)
    assert not OBEYED & set(shown)
    assert plain(shown) == shown


@pytest.mark.parametrize("text", ["naïve café", "日本語", "مرحبا", "👩‍👩‍👧", "a\tb\nc", "🇫🇷 ½ → ∞"])
def test_text_of_every_language_stays(text):
    assert plain(text) == text


def test_every_renderable_of_a_console_is_plain():
    console = SafeConsole(file=io.StringIO(), force_terminal=False, width=200)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(escape(HOSTILE))
    console.print(escape(HOSTILE), Text(HOSTILE), table, soft_wrap=True)
    with Live(Text(HOSTILE), console=console):
        pass
    assert not OBEYED & set(console.file.getvalue())
    assert "red" in console.file.getvalue()


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_the_displays_of_a_run_are_plain(display):
    console = SafeConsole(file=io.StringIO(), force_terminal=display is LiveProgress, width=200, color_system=None)
    progress = display(console)
    progress.started(iterations=1, batches_per_iteration=2, iteration=0, step=0)
    progress.probe(
        Findings((Finding(HOSTILE, HOSTILE, 1.0, 2, ("gold",)), Finding(HOSTILE, HOSTILE, 0.0, 0, ("gold",))))
    )
    progress.batch(record(HOSTILE))
    progress.evaluation({"batches": 1, "accuracy": 0.5, "by_category": {HOSTILE: 0.5}})
    progress.note(HOSTILE)
    progress.close()
    shown = console.file.getvalue()
    assert "0.50 [0.09, 0.91] of 2 pairs" in shown
    own = {"\x1b", "\r"} if display is LiveProgress else set()  # how the display moves the cursor
    assert not (OBEYED - own) & set(shown)
    assert "\x1b]0" not in shown
    assert "\x1b[2J\ufffd" not in shown


def test_sentences_are_plain(capsys):
    say(HOSTILE)
    say(HOSTILE, error=True)
    out, err = capsys.readouterr()
    assert not OBEYED & set(out + err)


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.slow
def test_everything_that_prints_goes_through_one_module():
    """Consoles are made, and text is printed, in cli/terminal.py; elsewhere only words of the program itself."""
    found = []
    for path in SOURCE.rglob("*.py"):
        if path.name in ("terminal.py", "document.py"):  # the latter writes a page of the documentation
            continue
        for name, call in calls(path):
            constant = all(isinstance(argument, ast.Constant) for argument in call.args)
            if name in ("Console", "print", "sys.stdout.write", "sys.stderr.write") and not (call.args and constant):
                found.append(f"{path.relative_to(SOURCE)}:{call.lineno} {name}")
    assert [place for place in found if not place.startswith("cli/chat.py")] == []
    assert len(found) <= 1  # a reply as it grows, made readable before


def test_a_reply_as_it_grows_is_plain():
    assert not OBEYED & set(readable(HOSTILE))


def test_the_console_of_commands_is_the_safe_one():
    assert isinstance(make_console(), SafeConsole)

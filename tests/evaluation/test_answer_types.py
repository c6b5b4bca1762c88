"""Answers read as what they are."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.evaluation.accuracy import accuracy
from laser.evaluation.answers import Reader, answer_check
from laser.evaluation.measure import measure

OPTIONS = {"A": "a bus stop", "B": "bus", "C": "-5", "D": "5", "E": "all of the above"}
TYPES = ("auto", "text", "number", "yes_no", "option", "math")


def read_answer(asked, text, answer_format):
    return Reader(answer_format).read(asked, text).answer


def prompt(kind, gold, **metadata):
    metadata = {"answer_type": kind, **({"options": OPTIONS} if kind == "option" else {}), **metadata}
    return Prompt("p", ({"role": "user", "content": "?"},), answer=gold, metadata=metadata)


@pytest.mark.parametrize(
    ("answer_format", "kind", "text", "said"),
    [
        ("final_answer", "auto", "It is red.\nFinal answer: red", "red"),
        ("final_answer", "auto", "It is red.", None),
        ("auto", "auto", "So red.\nAnswer: red", "red"),
        ("auto", "auto", "A poem.\nI hope this helps!", "A poem.\nI hope this helps!"),
        ("auto", "auto", "  ", None),
        ("auto", "number", "3 + 4 = 7", "7"),
        ("auto", "number", "I cannot say.", None),
        ("auto", "option", "(B)", "B"),
        ("whole", "auto", "red\n", "red"),
    ],
)
def test_what_a_response_says_is_its_answer_only_where_one_is_marked_or_expected(answer_format, kind, text, said):
    assert Reader(answer_format).said(prompt(kind, None), text) == said


@pytest.mark.parametrize(
    ("kind", "text", "gold", "read", "right"),
    [
        ("number", "18 eggs", "18", "18", True),
        ("number", "$1,234.50 a day", "1234.5", "1234.50", True),
        ("number", "3 + 4 = 7", "7", "7", True),
        ("number", "-.5", "-0.5", "-.5", True),
        ("number", "about 20 (10 + 10)", "20", "20", True),
        ("number", "$18 = the total", "18", "18", True),
        ("number", "$2{,}000", "2000", "2000", True),
        ("number", "\u22125", "-5", "-5", True),
        ("number", "1e-5", "0.00001", "1e-5", True),
        ("number", "25%", "25", "25%", True),
        ("number", "25 %", "25", "25%", True),
        ("number", "0.25", "25%", "0.25", True),
        ("number", "25%", "26", "25%", False),
        ("number", "25", "2500", "25", False),
        ("number", "many", "18", None, False),
        ("auto", "100000000000000000000", "1e+20", "100000000000000000000", True),
        ("number", "18a", "18", "18", True),
        ("yes_no", "True, because it is", "yes", "yes", True),
        ("yes_no", "It is false.", "no", "no", True),
        ("yes_no", "yes or no", "yes", None, False),
        ("yes_no", "It may be yes, it may be no", "yes", None, False),
        ("yes_no", "It is not true", "yes", None, False),
        ("yes_no", "Perhaps", "yes", None, False),
        ("option", "B", "B", "B", True),
        ("option", "(b)", "B", "B", True),
        ("option", "**B. bus**", "B", "B", True),
        ("option", "B) something else", "B", "B", True),
        ("option", "Option D", "D", "D", True),
        ("option", "The correct answer is (D).", "D", "D", True),
        ("option", "The correct answer is option D.", "D", "D", True),
        ("option", "Therefore, the answer is D", "D", "D", True),
        ("option", "D is correct", "D", "D", True),
        ("option", "D, because all of the above is wrong", "D", "D", True),
        ("option", "D (5, not a bus)", "D", "D", True),
        ("option", r"\boxed{\text{D}}", "D", "D", True),
        ("option", r"\(D\)", "D", "D", True),
        ("option", "A bus it is", "B", "B", True),
        ("option", "a bus stop", "A", "A", True),
        ("option", "It is the bus stop.", "A", "A", True),
        ("option", "-5", "C", "C", True),
        ("option", "5", "D", "D", True),
        ("option", "5", "C", "D", False),
        ("option", "All of the above.", "E", "E", True),
        ("option", "D, B and A", "ABD", "ABD", True),
        ("option", "ABD", "ABD", "ABD", True),
        ("option", "AB", "ABD", "AB", False),
        ("option", "Z", "A", None, False),
        ("option", "bus or 5", "B", None, False),
        ("option", "none of these", "A", None, False),
        ("text", "Role of Art, in society", "The role of art in society", "Role of Art, in society", True),
        ("text", "the role of art", "The role of art in society", "the role of art", False),
        ("math", r"$\frac{1}{2}$", r"\frac12", r"$\frac{1}{2}$", True),
        ("math", "0.5", r"\frac{1}{2}", "0.5", True),
        ("math", r"\boxed{\frac{\sqrt{3}}{3}}", r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt{3}}{3}", True),
        ("math", "x = 5", "5", "x = 5", True),
        ("math", r"$\$36$", r"\$36", r"$\$36$", True),
        ("math", "(2, 1)", "(1,2)", "(2, 1)", False),
        ("math", "Evelyn", r"\text{Evelyn}", "Evelyn", True),
        ("math", "10,080", r"10,\!080", "10,080", True),
        ("math", "90", r"90^\circ", "90", True),
        ("math", "Even number", r"\text{even number}", "Even number", True),
        ("math", "7", "8", "7", False),
    ],
)
def test_reading_and_checking(kind, text, gold, read, right):
    asked = prompt(kind, gold)
    assert read_answer(asked, f"So.\nFinal answer: {text}", "final_answer") == read
    assert answer_check("final_answer")(asked, f"So.\nFinal answer: {text}") is right


@pytest.mark.parametrize("kind", ["number", "math"])
@pytest.mark.parametrize(
    "text",
    [
        "**Final answer**: 18",
        "**Final answer:** 18",
        "### Final answer\n18",
        "**Final Answer**\n\n18",
        "Final answer:\n\\[\n\\boxed{18}\n\\]",
        "**Final Answer:**\n\n\\[\n\\boxed{18}\n\\]",
        "Final answer: $$\n18\n$$",
        "Final answer: 18\nI hope that this is my\nfinal answer to it.",
    ],
)
def test_the_ways_in_which_models_set_a_final_answer(kind, text):
    assert read_answer(prompt(kind, "18"), f"So 3 + 15.\n{text}", "final_answer") == "18"


def test_mathematics_without_a_final_answer_needs_a_box():
    assert read_answer(prompt("math", "2"), r"Thus \boxed{1+1}.", "final_answer") == "1+1"
    assert answer_check("final_answer")(prompt("math", "2"), r"Thus \boxed{1+1}.")
    assert read_answer(prompt("math", "2"), "Thus 2.", "final_answer") is None


def test_mathematics_that_continues_for_pages_is_not_read():
    assert read_answer(prompt("math", "2"), f"Final answer: {'1+' * 300}1", "final_answer") is None


def test_mathematics_is_compared_outside_the_main_thread_too():
    found = []
    worker = threading.Thread(
        target=lambda: found.append(answer_check("final_answer")(prompt("math", r"\frac12"), "Final answer: 0.5"))
    )
    worker.start()
    worker.join()
    assert found == [True]


def test_mathematics_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(DataError, match=r"math-verify; install it with: pip install 'laser-rm\[eval\]'"):
        read_answer(prompt("math", "1"), r"Final answer: \sqrt{2}", "final_answer")


def test_any_of_several_gold_answers_is_right():
    asked = prompt("text", "New York", answers=["New York", "NYC"])
    assert answer_check("final_answer")(asked, "Final answer: nyc")
    assert not answer_check("final_answer")(asked, "Final answer: Boston")


@pytest.mark.parametrize(
    ("golds", "text", "right"),
    [
        (["18", "eighteen"], "18 dollars", True),
        (["18", "eighteen"], "It costs $18.00.", True),
        (["18", "eighteen"], "Eighteen.", True),
        (["18", "eighteen"], "18 or 19", False),
        (["18", "eighteen"], "eighteen dollars", False),
        (["B", "vitamin B"], "(B)", True),
        (["yes", "it does"], "That is true", True),
        (["yes", "it does"], "It does.", True),
        (["yes", "it does"], "That is false", False),
    ],
)
def test_several_gold_answers_of_different_kinds_are_each_read_as_what_they_are(golds, text, right):
    asked = prompt("auto", golds[0], answers=golds)
    assert answer_check("auto", [asked, prompt("auto", "a dog")])(asked, text) is right
    assert answer_check("auto")(asked, text) is right


def test_unreadable_answers_are_counted_by_both_measures():
    prompts = [prompt("number", "1"), prompt("yes_no", "yes"), prompt("option", "A")]
    texts = ["Final answer: one", "Final answer: yes", "Final answer: Z"]
    found = accuracy(lambda _: texts, prompts, "final_answer")
    assert (found.overall, found.unreadable.num) == (pytest.approx(1 / 3), 2)
    measured = measure(prompts, texts, [True] * 3, metric="accuracy", answer_format="final_answer", seed=0)
    assert (measured.unreadable.num, measured.overall.value) == (2, pytest.approx(1 / 3))


@given(st.text(max_size=120), st.sampled_from([kind for kind in TYPES if kind != "math"]), st.booleans())
def test_no_text_breaks_the_reading(text, kind, whole):
    asked = prompt(kind, "A")
    for response in (text, f"Final answer: {text}"):
        read = read_answer(asked, response, "whole" if whole else "final_answer")
        assert read is None or read
        if kind == "option" and read is not None:
            assert set(read) <= set(OPTIONS)


@pytest.mark.parametrize("text", ["\\", "{", r"\frac{1}{", "$$", "\\boxed{", "1/0", "^^^", "9^9^9^9^9"])
def test_broken_mathematics_is_wrong_or_unread(text):
    assert not answer_check("final_answer")(prompt("math", "3"), f"Final answer: {text}")


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        *(("5", text, False) for text in ("> 5", r"\geq 5", "5 or more", "at least 5", "5..6", r"5 \mod 7")),
        *[
            ("11", "1 1", False),
            ("12", r"1\,2", False),
            ("3/4", "3:4", False),
            ("10_2", "10", False),
            ("n", "n!", False),
        ],
        *[("5", "$x=5$ or $x=6$", False), ("12000", r"12\,000", True), ("5/2", "2 1/2", True), ("x<5", "5>x", True)],
        *[
            ("3:4", "3 : 4", True),
            ("n!", "n!", True),
            (r"x \in [1,2]", "[1,2]", True),
            ("5 or more", "5 or more", True),
        ],
        *[("ln 2", r"\ln 2", True), ("5, 6", "$5$ and $6$", True)],
    ],
)
def test_mathematics_is_compared_with_all_its_signs(gold, answer, same):
    """math-verify alone passes over relations, ratios, bases, factorials and blanks between digits."""
    asked = Prompt("p", ({"role": "user", "content": "?"},), answer=gold, metadata={"answer_type": "math"})
    assert answer_check("auto")(asked, f"Answer: {answer}") is same

"""Finding, comparing and counting answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.core.errors import DataError
from laser.core.statistics import wilson_interval
from laser.data.embedded import generate
from laser.evaluation.accuracy import accuracy
from laser.evaluation.answers import Reader, answers_match
from tiny import make_prompt


def final_answer(text):
    return Reader("final_answer").read(make_prompt("q", answer="words"), text).answer


SURROUNDINGS = [
    "Final answer: {}",
    "Some thought.\nFinal answer: {}.",
    "**Final Answer:** {}",
    "final answer:   **{}**  \nAnd more talk.",
    "Final answer: 17\nNo, wait.\nFinal answer: {}",
    'The final answer is: "{}".',
    r"Final answer: $\boxed{{{}}}$",
    "Final answer:\n{}\n",
]


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_every_embedded_gold_answer_parses_to_itself(surrounding):
    for prompt in generate(200, seed=3):
        found = final_answer(surrounding.format(prompt.answer))
        assert found is not None
        assert answers_match(found, prompt.answer), (found, prompt.answer)


@pytest.mark.parametrize("text", ["", "The answer is 4.", "Final answer:", "Final answer: \n \n", "final"])
def test_no_final_answer_is_none(text):
    assert final_answer(text) is None


@pytest.mark.parametrize(
    ("answer", "gold", "match"),
    [
        ("1,200", "1200", True),
        ("$1200.00", "1200", True),
        ("12.", "12", True),
        ("50%", "0.5", True),
        ("3/4", "0.75", True),
        ("-3", "3", False),
        ("12 apples", "12", False),
        ("1/0", "1", False),
        ("Yes, it is", "yes", True),
        ("True", "yes", True),
        ("not yes", "yes", False),
        ("no", "yes", False),
        ("BRIDGE", "BRIDGE", True),
        ("bridge", "BRIDGE", False),
        ("Bridge", "bridge", True),
        ("oyster  oyster", "oyster oyster", True),
        ("oyster", "oyster oyster", False),
        ("", "oyster", False),
    ],
)
def test_matching(answer, gold, match):
    assert answers_match(answer, gold) is match


@given(st.integers(-(10**9), 10**9))
def test_numbers_match_in_any_usual_spelling(number):
    for spelling in (str(number), f"{number:,}", f"{number}.0", f" {number}. "):
        assert answers_match(spelling, str(number))
    assert not answers_match(str(number + 1), str(number))


@given(st.text(max_size=200))
def test_extraction_survives_any_text(text):
    answer = final_answer(text)
    assert answer is None or answer.strip() == answer != ""
    answers_match(text, "12")


PROMPTS = [
    make_prompt("a", id="0", category="x", answer="1"),
    make_prompt("b", id="1", category="x", answer="2"),
    make_prompt("c", id="2", category="y", answer="yes"),
]


def test_accuracy_counts_by_category_and_the_unparseable_as_wrong():
    found = accuracy(lambda prompts: ["Final answer: 1", "no idea", "Final answer: yes"], PROMPTS, "final_answer")
    assert found.overall == pytest.approx(2 / 3)
    assert found.by_category == {"x": 0.5, "y": 1.0}
    assert (found.num_prompts, found.unreadable.num) == (3, 1)
    assert found.as_record()["accuracy"] == found.overall


def test_several_answers_to_a_prompt_count_as_their_mean():
    texts = ["Final answer: 1", "Final answer: 2", "no idea", "no idea", "Final answer: yes", "Final answer: yes"]
    found = accuracy(lambda prompts: texts, PROMPTS, "final_answer", samples=2)
    assert found.overall == pytest.approx(0.5)
    assert found.by_category == {"x": 0.25, "y": 1.0}
    assert found.correct == {"0": 0.5, "1": 0.0, "2": 1.0}
    assert (found.num_prompts, found.num_answers, found.unreadable.num, found.unreadable.num_responses) == (3, 6, 2, 6)
    assert found.interval == pytest.approx(wilson_interval(1.5, 3))
    with pytest.raises(ValueError, match="argument 2 is"):
        accuracy(lambda prompts: texts[:5], PROMPTS, "final_answer", samples=2)


def test_prompts_without_gold_answers_are_refused():
    with pytest.raises(DataError, match=r"1 of 4 dev prompts have no gold answer .* first 'q'"):
        accuracy(lambda prompts: [""] * 4, [*PROMPTS, make_prompt("d", id="q")])
    with pytest.raises(DataError, match="no prompts to evaluate"):
        accuracy(lambda prompts: [], [])


def test_every_prompt_is_recorded_by_its_id():
    found = accuracy(lambda prompts: ["Final answer: 1", "no idea", "Final answer: yes"], PROMPTS)
    assert found.as_record()["correct"] == {"0": 1, "1": 0, "2": 1}


def test_a_record_of_many_prompts_stays_small(monkeypatch):
    monkeypatch.setattr("laser.evaluation.accuracy.MAX_KEPT", 2)
    assert "correct" not in accuracy(lambda prompts: ["", "", ""], PROMPTS).as_record()

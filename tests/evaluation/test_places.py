"""Where models write their answers: the habits of data sets and model families, read with the defaults."""

import time

import pytest

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.evaluation.accuracy import accuracy
from laser.evaluation.answers import Reader, answer_check, type_of_answers
from laser.evaluation.metrics import check_gold, make_metric, rouge_l, token_f1
from laser.evaluation.unreadable import unreadable_lines
from laser.evaluation.words import said_words, script_words, squad_words

OPTIONS = {"A": "Paris", "B": "London", "C": "Rome", "D": "-5"}


def read_answer(asked, text, answer_format):
    return Reader(answer_format).read(asked, text).answer


def prompt(gold, id="p", **metadata):
    return Prompt(id, ({"role": "user", "content": "?"},), answer=gold, metadata=metadata)


NUMBERS = {
    "GSM8K": "He has 3 apples.\nHe buys 48.\n3 + 48 = 51\n#### 51",
    "Minerva": "Thus $x=51$.\nFinal Answer: The final answer is $51$. I hope it is correct.",
    "MATH": r"Adding up, 3 + 48 = 51, so the sum is $\boxed{51}$.",
    "nested": r"\boxed{\text{51}} is the sum",
    "Llama": "## Step 1: Add\n3 + 48\n\nThe final answer is: $\\boxed{51}$. I hope it is correct.",
    "Qwen": "To find the sum, add 3 and 48:\n\\[\n3 + 48 = 51\n\\]\n\nThe answer is:\n\\[\n\\boxed{51}\n\\]",
    "DeepSeek": "<think>\nMaybe 7. Final answer: 7\n</think>\n\n**Answer:** 51",
    "Magistral": "[THINK]Final answer: 7[/THINK]51",
    "said before a thought": "Answer: 51\n<think>Or is it 7? Answer: 7",
    "template opens the thought": "Perhaps 7? The answer is 7.\n</think>\nThe sum is 51.",
    "bold": "**Final Answer: 51**",
    "heading": "### Answer\n51",
    "dollars": "51 dollars",
    "currency": "$51",
    "equation": "3 + 48 = 51",
    "sentence": "The answer is 51.",
    "last line": "He had 3.\nSo he has 51 apples in all.",
    "afterthought": "The answer is 51. The answer is right because I checked it.",
    "unit after": "Final answer: 51. The answer is in dollars.",
    "corrected": "Answer: 50\nWait, I forgot one.\nAnswer: 51",
    "code fence": "```\nAnswer: 51\n```",
    "DeepSeek-R1-Zero": "<think>7</think>\n<answer>\n3 + 48 = 51\n</answer>",
    "tag without an end": "Adding 3.\n<answer> 51",
    "JSON": '{"reasoning": "3 + 48", "answer": 51}',
    "JSON text in a fence": '```json\n{"final_answer": "51", "check": 3}\n```',
    "French": "La réponse est 51.\nVérifions : 48 + 3.",
    "Chinese": "**答案：** 51\n检查：48 和 3。",
    "to the question": "The answer to the question of the sum is 51.",
}


@pytest.mark.parametrize("habit", NUMBERS)
def test_numbers_are_found_where_models_write_them(habit):
    assert answer_check("auto")(prompt("51"), NUMBERS[habit])
    assert not answer_check("auto")(prompt("3"), NUMBERS[habit])


SENTENCES = {
    "51": [
        *("51 apples left after 3 days", "She has 51 apples left after 3 days.", "After 3 days, she has 51."),
        *("51 (not 50)", "51, not 50", "51 not 50", "The answer is not 50, it is 51.", "~51 (rounded from 50.9)"),
        *("51 apples, 3 more than before", "51 apples, 3 of which are rotten", "51 people (3 of them children)"),
        *("The 3 workers need 51 days in total.", "She has **51** of the **54** apples", "It is 51, which is 3 * 17"),
        *("There are 3 boxes with 17 each, so 51 apples.", "He made 51 because 3 times 17 equals 51.", "Day 3: 51"),
        *("Step 3: She has 51 apples.", "3. She has 51 apples.", "**Step 3:** She has 51 apples.", "Question 3: 51"),
        *(
            "Two boys have 51 apples.",
            "Each of the two has 51.",
            "She sold 51 apples in two days.",
            "He has 51 (fifty-one)",
        ),
        *(
            "She has fifty-one (51) apples.",
            "It is one more than 50, so 51.",
            "51% of them, so 51",
            "It is 51, or 51.0.",
        ),
        *("If 3 apples are eaten, 51 remain.", "There were 3. He buys 48. He has 51 in total. Check it!"),
        *("- 51 apples", "– 51 apples", "* 51 apples", "- She has 51", "- $51 per day", "- 3 pears\n- 51"),
        *(
            "Answer:\n- 51 apples",
            "Answer: After 3 days she has 51 apples.",
            "The answer is that 51 of the 54 are left",
        ),
    ],
    "-51": ["- 51", "-51 apples", "Answer: - 51 apples", "x = - 51", "\u2212 51 degrees", "It is - 51 degrees."],
    None: [
        *("3 workers finish in 51 days", "It takes 51 days for 3 workers", "He bought 3 books for 51 dollars."),
        *("She had 54 apples and has 51 left", "51 apples. This is 3 more than before.", "51 apples; 3 left over"),
        *("51 if it rains, 3 otherwise", "If it rains 3, otherwise 51", "She has 3 apples and gives 51 away"),
        *("She has six apples left after 3 days.", "The 3 boys have six apples.", "The answer is twelve after 3 days."),
        *(
            "There are no apples left after 3 days.",
            "She has one apple left after 3 days.",
            "It takes 51 days for two men",
        ),
        *(
            "It is 1.5 hours, or 90 minutes.",
            "He has half a dozen eggs in 2 cartons.",
            "There is no solution for 3 equations",
        ),
        *("I don't know; 3 is missing", "The answer is (2)^(1/2)", "It was 50, now 51."),
        *("It is not 51.", "Il reste 51 pommes après 3 jours", "51 degrees below zero"),
    ],
}


@pytest.mark.parametrize(("number", "text"), [(number, text) for number, texts in SENTENCES.items() for text in texts])
def test_a_sentence_with_several_numbers_states_one_or_is_not_read(number, text):
    read = Reader("auto").read(prompt("51", answer_type="number"), text)
    assert (read.answer, read.problem == "") == (number, number is not None)


CHOICES = {
    "MMLU": ("The answer is (C).", "C"),
    "colon": ("Answer: C", "C"),
    "letter A and text": ("A. Paris", "A"),
    "A in brackets": ("(A) Paris", "A"),
    "A before a bracket": ("A) Paris", "A"),
    "bold A": ("**A**", "A"),
    "bold A and text": ("The correct answer is **A. Paris**.", "A"),
    "A before other words": ("A. The city of light", "A"),
    "letter before another option's text": ("A. London", "A"),
    "reason": ("B, because C is wrong", "B"),
    "text alone": ("Rome", "C"),
    "text in a sentence": ("The answer is Rome.", "C"),
    "minus sign": ("The answer is \u22125.", "D"),
    "en dash": ("\u20135", "D"),
    "boxed": (r"\boxed{\text{B}}", "B"),
    "tag": ("<answer>\nB\n</answer>", "B"),
    "JSON": ('{"answer": "B", "why": "A is wrong"}', "B"),
    "letter before an explanation": ("**B**\n\nA is wrong because Paris is in France.", "B"),
    "full-width letter": ("Answer: Ｂ。", "B"),
    "Chinese": ("所以正确答案是（B）。", "B"),
    "Chinese choice": ("因此答案选B", "B"),
    "Spanish": ("La respuesta correcta es B.", "B"),
    "German": ("Die Antwort lautet: **B**", "B"),
    "Russian": ("Правильный ответ: B", "B"),
    "choice": ("I would choose option (B).", "B"),
}


@pytest.mark.parametrize("habit", CHOICES)
def test_choices_are_found_where_models_write_them(habit):
    text, letter = CHOICES[habit]
    assert read_answer(prompt("A", options=OPTIONS), text, "auto") == letter


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Not London",
            "anything except London",
            "It isn't the city of London",
            "London is wrong",
            "everything but Rome",
        ),
        *(
            "(B) is not correct",
            "A: wrong, B: correct",
            "A. No wait, B",
            "A, sorry, B",
            "A -> B",
            "B, or C",
            "B (or C)",
        ),
    ],
)
def test_an_option_that_is_denied_or_one_of_several_is_not_the_answer(text):
    read = Reader("auto").read(prompt("A", options=OPTIONS), f"Answer: {text}")
    assert (read.answer, read.problem) == (None, f"{text!r} names no option")


@pytest.mark.parametrize(("text", "letter"), [("B (not A)", "B"), ("B, not A", "B"), ("(A) is not prime", "A")])
def test_an_option_with_a_remark_is_the_answer(text, letter):
    assert read_answer(prompt("A", options={"A": "is not prime", "B": "is wrong"}), text, "auto") == letter


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        *((text, None) for text in ("yes and no", "yes/no", "No idea", "No one knows", "no doubt yes", "No. 5")),
        *(
            (text, None)
            for text in ("It isn't true", "never true", "not necessarily true", "far from true", "Yes. Wait, no")
        ),
        *((text, None) for text in ("I cannot say yes", "I wouldn't say no", "unlikely to be true")),
        *((text, "no") for text in ("no", "No, that's false", "True or False: False", "It is not the case, so no")),
        *((text, "yes") for text in ("Yes, it is not false.", "Yes, no doubt", "It is true")),
    ],
)
@pytest.mark.parametrize("kind", ["yes_no", "auto"])
def test_yes_and_no_are_what_is_said_and_not_denied(text, truth, kind):
    read = Reader("auto").read(prompt("yes", answer_type=kind), f"Answer: {text}")
    assert read.is_right == (truth == "yes")
    assert read.answer == truth


@pytest.mark.parametrize("part", ["A, ", "A. ", "1 no, ", "(", "-", "<sup>", "5?", "1 or "])
def test_a_response_that_repeats_itself_takes_no_time(part):
    begun, text = time.perf_counter(), f"Answer: {part * 1000}5"
    for asked in (prompt("51"), prompt("yes"), prompt("A", options=OPTIONS)):
        Reader("auto").read(asked, text)
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("kind", ["text", "auto"])
def test_signs_are_told_apart(kind):
    asked = [prompt("?", answer_type=kind), prompt("a dog")]
    assert Reader("auto", asked).is_right(asked[0], "Answer: ?")
    assert not Reader("auto", asked).is_right(asked[0], "Answer: !")


def test_options_that_differ_by_symbols_are_told_apart():
    asked = prompt("A", options={"A": "C", "B": "C++", "C": "C#", "D": ".NET"})
    read = [read_answer(asked, f"Answer: {text}", "auto") for text in ("c++", "C#", ".net")]
    assert read == ["B", "C", "D"]


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("Paris.", "paris", True),
        ("«Paris»", "Paris", True),
        ("東京。", "東京", True),
        ("नमस्ते।", "नमस्ते", True),
        ("cafe\u0301", "café", True),
        ("STRASSE", "straße", True),
        ("1,000", "1000", True),
        ("\u2013 5", "-5", True),
        ("C++.", "C++", True),
        ("Ben & Jerry", "Ben Jerry", False),
        ("C++", "C", False),
        ("C#", "C", False),
        (".NET", "NET", False),
        ("-5", "5", False),
        ("3.5", "35", False),
        ("50%", "50", False),
        ("Hepatitis A", "Hepatitis", False),
        ("x - 5", "x 5", False),
    ],
)
def test_text_is_what_was_said(answer, gold, same):
    assert answer_check("auto")(prompt(gold, answer_type="text"), f"Final answer: {answer}") is same


ARC = {"1": "iron", "2": "2 nails", "3": "1", "4": "wood"}
ROMAN = {"i": "iron", "ii": "nails", "iii": "wood"}


@pytest.mark.parametrize(
    ("options", "gold", "text", "right"),
    [
        *((ARC, "2", text, True) for text in ("2", "(2)", "2.", "2) 2 nails", "The answer is 2.", "**2**", "2 nails")),
        *((ARC, "2", text, True) for text in ("Answer: (2)", "Option 2", "2, because nails rust", "2 is correct")),
        *((ARC, "2", text, False) for text in ("1", "3", "2.5", "12", "wood", "The answer is 3.", "2, 3")),
        *((ARC, "1", text, True) for text in ("1", "iron", "1: iron")),
        *((ARC, "iron", text, right) for text, right in (("1", True), ("2", False))),
        *((ROMAN, "ii", text, True) for text in ("ii", "(ii)", "II", "nails", "The answer is (ii).", "ii. nails")),
        *((ROMAN, "ii", text, False) for text in ("i", "iii", "(iii)", "iron")),
    ],
)
def test_labels_of_options_may_be_digits_or_numerals(options, gold, text, right):
    asked = [prompt(gold, options=options), prompt("A", options=OPTIONS)]
    assert type_of_answers(asked) == "option"
    assert Reader("auto", asked).is_right(asked[0], text) is right


def test_the_types_of_a_split():
    assert type_of_answers([prompt("51"), prompt("1,200"), prompt("3/4")]) == "number"
    assert type_of_answers([prompt("51"), prompt("4 (pens)")]) == "number"
    assert type_of_answers([prompt("51"), prompt("51 or 52")]) == "auto"
    assert type_of_answers([prompt("51"), prompt("4 (not 5)"), prompt("3(x)")]) == "auto"
    assert type_of_answers([prompt("Yes"), prompt("false")]) == "yes_no"
    assert type_of_answers([prompt("A"), prompt("D")]) == "option"
    assert type_of_answers([prompt("A", options=OPTIONS), prompt("London", options=OPTIONS)]) == "option"
    assert type_of_answers([prompt("51"), prompt("B", answer_type="option")]) == "number"
    assert type_of_answers([prompt(None)]) == "auto"


def test_the_whole_split_decides_how_an_answer_is_read():
    numeric, mixed = [prompt("51"), prompt("7")], [prompt("51"), prompt("a dog")]
    assert Reader("auto", numeric).is_right(numeric[0], "51 dollars")
    assert not Reader("auto", mixed).is_right(mixed[0], "51 dollars")
    assert Reader("auto", mixed).is_right(mixed[0], "51.0")


def test_text_after_its_mark_ends_with_its_sentence():
    assert answer_check("auto")(prompt("Paris"), "The answer is Paris. It is the capital.")
    assert answer_check("auto")(prompt("St. Louis"), "The answer is St. Louis. It is in Missouri.")


def test_the_papers_format_reads_nothing_else():
    assert read_answer(prompt("51"), "The answer is 51.\n#### 51", "final_answer") is None
    assert Reader("final_answer").read(prompt("51"), "51").problem == "there is no 'Final answer:'"


@pytest.mark.parametrize("answer_format", ["auto", "final_answer", "whole"])
def test_thoughts_without_an_end_have_no_answer(answer_format):
    read = Reader(answer_format).read(prompt("51"), "<think>\nFinal answer: 51, or is it")
    assert (read.answer, read.problem) == (None, "the response ends inside its thoughts")
    assert make_metric("f1", answer_format)(prompt("51"), "<think>51").value == 0


def test_gold_answers_that_cannot_be_used_are_refused_with_the_cure():
    with pytest.raises(DataError, match=r"'q' cannot be used: '12:30' is not a number, .* set data\.answer_type"):
        check_gold(
            [prompt("12", answer_type="number"), prompt("12:30", id="q", answer_type="number")], "accuracy", "dev"
        )
    with pytest.raises(DataError, match="'Berlin' names no option"):
        check_gold([prompt("Berlin", answer_type="option", options=OPTIONS)], "accuracy", "dev")


def test_unreadable_answers_are_counted_and_shown_with_the_reason():
    prompts = [prompt(str(number), id=f"q{number}") for number in range(10)]
    texts = ["12:30", "five", "5 or 6", "about"] + [f"Answer: {number}" for number in range(4, 10)]
    found = accuracy(lambda _: texts, prompts)
    lines = unreadable_lines(found.as_record(), 10)
    assert lines[0] == "4 of 10 answers cannot be read and count as wrong:"
    assert lines[1] == "  q0: '12:30' is not one number; the response ends: '12:30'"
    assert len(lines) == 1 + 3 + 1
    assert "set evaluation.answer" in lines[-1]
    assert found.overall == 0.6
    few = accuracy(lambda _: ["about", "1", *texts[2:2], *map(str, range(2, 10))], prompts)
    assert len(unreadable_lines(few.as_record(), 10)) == 2
    assert unreadable_lines({"num_unparseable": 0}, 10) == []


def test_words_of_scripts_without_spaces_are_characters():
    assert script_words("天气好 Café नमस्ते สวัสดี don't") == [
        *("天", "气", "好", "café", "नमस्ते", "ส", "วั", "ส", "ดี", "don", "t"),
    ]
    assert squad_words("The cat's, 3.5") == ["cats", "35"]
    assert said_words("The role of Art, in society") == ["role", "of", "art", "in", "society"]


def test_rouge_l_of_any_script():
    """Longest common subsequence of 3 among 4 and 4 words or characters: F = 0.75; of nothing shared: 0."""
    rouge = rouge_l()
    assert rouge("今天天好", "今天很好") == pytest.approx(0.75)
    assert rouge("Сегодня погода очень хорошая", "Сегодня погода не хорошая") == pytest.approx(0.75)
    assert rouge("今天", "昨夜") == 0
    assert token_f1("今天天好", "今天很好") == pytest.approx(0.75)


@pytest.mark.parametrize("gold", ["😀", "≤", "+", "?!"])
def test_rouge_l_of_a_gold_answer_without_words_is_whether_it_was_said(gold):
    rouge = rouge_l()
    assert [rouge(text, gold) for text in (gold, f" {gold}\n", "=", "", "yes")] == [1, 1, 0, 0, 0]


def test_rouge_l_of_english_is_that_of_the_package():
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    text, gold = "The dogs were running quickly, isn't it so (3.5 km)?", "A dog runs quick; it's 3.5 kilometers, so."
    assert rouge_l()(text, gold) == pytest.approx(scorer.score(gold, text)["rougeL"].fmeasure)

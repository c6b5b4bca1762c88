"""Thoughts are separated from the answer in the markup of every family."""

import pytest

from laser.core.thoughts import without_thoughts

FAMILIES = {
    "DeepSeek": ("<think>", "</think>"),
    "template opens the thought": ("", "</think>"),
    "Claude": ("<thinking>", "</thinking>"),
    "Magistral": ("[THINK]", "[/THINK]"),
    "Seed": ("<seed:think>", "</seed:think>"),
    "LongCat": ("<longcat_think>", "</longcat_think>"),
    "Kimi": ("◁think▷", "◁/think▷"),
    "Command": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "Gemma": ("<|channel>thought\n", "<channel|>"),
    "Apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "Granite": ("Here is my thought process:", "Here is my response:"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "gpt-oss without control tokens": ("analysisThe", "assistantfinal"),
    "tags": ("<reasoning>", "</reasoning>"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_thought_becomes_blanks_so_that_places_stay(family):
    begin, end = FAMILIES[family]
    thought = f"{begin} is it 7?\nFinal answer: 7\n{end}"
    assert without_thoughts(f"{thought}51") == (" " * len(thought) + "51", False)


@pytest.mark.parametrize("family", [name for name, (begin, _) in FAMILIES.items() if begin])
def test_a_thought_without_an_end_is_nothing_that_was_said(family):
    thought = f"{FAMILIES[family][0]} is it 7?\nFinal answer: 7"
    assert without_thoughts(thought) == (" " * len(thought), True)


def test_what_was_said_before_a_thought_stays():
    assert without_thoughts("51 <think>7") == ("51" + " " * 9, True)
    assert without_thoughts("I think 51") == ("I think 51", False)

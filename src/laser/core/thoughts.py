"""Thoughts in the output of language models: what a model writes for itself is neither its answer nor its rating."""

from __future__ import annotations

import re

_TAG = r"(?:\w+[:_])?(?:think|thinking|thoughts?|antthinking)"
_OPENED = re.compile(
    rf"(?i)<\s*{_TAG}\b[^<>]*>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING|inner_prefix)\|>|<unused94>"
    r"|<\|channel>\s*thought|\A\s*Here is my thought process:"
)
_CLOSED = re.compile(
    rf"(?i)<\s*/\s*{_TAG}\s*>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING|inner_suffix)\|>|<unused95>"
    r"|<channel\|>|\A\s*Here is my thought process:[\s\S]*?Here is my response:"
)
_ASIDE = re.compile(
    r"(?is)<(reasoning|reflection|analysis|explanation|scratchpad)\b[^<>]*>(?:.*?</\1\s*>|(?P<open>.*))"
)
_CONTROL = re.compile(r"<\|[^|<>]*\|>|</?s>")
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*<\|message\|>")


def without_thoughts(text: str) -> tuple[str, bool]:
    """The text with blanks in place of thoughts and control tokens, and whether the last thought has no end."""
    begin = 0
    if "<|channel|>" in text:  # gpt-oss: only the last channel counts, and only if it is the final one
        finals = list(_FINAL.finditer(text))
        if not finals or "<|channel|>" in text[finals[-1].end() :]:
            return " " * len(text), True
        begin = finals[-1].end()
    elif re.match(r"\s*analysis(?=[A-Z])", text):  # the same after its control tokens were dropped
        begin = text.rfind("assistantfinal") + len("assistantfinal")
        if begin < len("assistantfinal"):
            return " " * len(text), True
    begin = max([begin, *(match.end() for match in _CLOSED.finditer(text))])
    said = " " * begin + text[begin:]
    opened = [match.start() for match in _OPENED.finditer(said)]
    opened += [match.start() for match in _ASIDE.finditer(said) if match["open"] is not None]
    end = min(opened, default=len(said))
    said = _CONTROL.sub(_blank, _ASIDE.sub(_blank, said[:end]))
    return said + " " * (len(text) - end), bool(opened)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())

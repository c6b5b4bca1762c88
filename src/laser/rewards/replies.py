"""Reading a judge's reply: what the model says after its thoughts, and in it a rating or a verdict.

Both judges read by the same rules. JSON, double brackets, tags, a labeled value ("Rating: 7/10", "the better response
is B"), a separate line and a plain sentence are looked for in this order; the first of these forms that occurs
decides. Values that contradict each other, ranges, other scales and values off the scale cannot be read: such a reply
has no rating and no verdict.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laser.core.thoughts import without_thoughts
from laser.serving.endpoint import MALFORMED, billed

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = r"(?<![\w.,/$€£])[-+]?\d+(?:\.\d+|,\d{1,2})?(?![\w%]|[.,]\d|\s*%)"
_OF = r"(?:\s*\(?\s*(?:/|out\s+of|of)\s*(?P<of>\d+(?:\.\d+)?)(?![\w%]|[.,]\d))?"
_SINGLE = r"(?!\s*\(?\s*(?:[-=]>|[-–—~/→]|to|or|and|bis|out\s+of|of)\s*[-+]?\d)(?:\s*(?:stars?|points?))?"  # not "6-7"
_NUMBER = rf"(?P<value>{_DIGITS}){_OF}{_SINGLE}"
_ANY_NUMBER = rf"(?P<value>{_DIGITS}|(?<!\w)(?:{'|'.join(_WORDS)})(?!\w)){_OF}{_SINGLE}"
_AFTER = r"""(?=\s*(?:$|[\n.,;!|)\]}"'<(–—-]|:(?!\s*\d)|(?:because|since|as|for|on)\b|(?-i:[A-Z])))"""
_RATED = (
    "rating score grade mark points overall verdict judgment judgement answer scale bewertung note nota puntuación "
    "calificación évaluation оценка 评分 得分 分数 評価 スコア"
).split()
_LABEL = (
    rf"""(?:(?P<whole>overall|final|total)[\s_-]*)?(?:{"|".join(_RATED)})(?:\s+of)?(?:\s*\([^()\n]{{0,40}}\))?["']?"""
)
_IS = r"""\s*(?:is|was|would\s+be|=|:|->|→|,|[-–—](?=\s))?\s*(?:an?\s)?\s*["'(\[{]*"""
_EITHER = re.compile(r"(?i)\W*(?:or|and|vs\.?|/)\W*")
_NOT = re.compile(r"(?i)\b(?:not|never|neither|cannot|\w+n't|if|unless|than|at\s+(?:most|least)|up\s+to)\b[^.\n]*$")
_NOT_THIS = re.compile(r"(?i)\b(?:not|than|over|instead\s+of)\W*\Z")  # "[[B]], not [[A]]"
_TAKEN_BACK = re.compile(
    r"(?i)[?.,;!…—-]\s*(?:no[,.]|(?:no\s+wait|wait|actually|sorry|correction|oops|hmm|I\s+mean)\b)[^.\n]{0,100}?"
    r"(?<!\w)(?:\d|(?-i:[ABC])(?!\w))"
)
_CONTRARY = re.compile(r"los|worse|worst|reject|inferior|max|confiden|deduct|errors?$")  # names that give no verdict

_EXAMPLE = re.compile(
    r"(?i)\b(?:examples?|e\.g\.|for\s+instance|such\s+as|sample|format|template)"
    r"(?:\s+(?:of\s+)?(?:the\s+|an?\s+)?(?:output|format|verdict|reply|response|rating|score|answer|judge?ment))*"
    r"\s*(?:would\s+be|is|[:,=(–—-])?[\s\"'“(]*(?:(?:my\s+)?(?:final\s+)?(?:rating|score|verdict|answer)\b[^.\n\[]{0,20})?\Z"
)
_RUBRIC = re.compile(
    r"(?i)[\s\"'”)]*(?:if\b|when\b|in\s+case\b|for\s+a\s+tie|means?\b|indicates?\b|denotes?\b|stands\s+for)"
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”")
_ANNOUNCING = re.compile(
    r"(?i)\b(?:verdict|rating|score|judge?ment|decision|conclusion|answer|choice)\b[^.\n\[]{0,40}\Z"
)

_TIE = r"(?i:ties?|tied|draw|equal|equally\s+good|same|both|neither)"
_ALSO = r"\s*(?:[/~]|,(?:\s*then)?)\s*[ABC]\b(?!\s+\w)"  # "A/B", "A, B"; not "A, B is worse"
_VERDICT = rf"(?P<value>[AB]\s*(?:=+|≈|>+|<+|≫|≪)\s*[AB](?!\w)|[ABC](?![\w'+]|{_ALSO})|{_TIE}(?!\w))"
_END = r"(?=\W*$|[^\w\s]|\s*\n)"  # a letter that begins a sentence ("A good answer ...") is not a verdict
_RESPONSE = r"(?i:(?:response|answer|assistant|option|model)\s+)"

_PLAIN = str.maketrans({"*": " ", "`": " ", "#": " ", "：": ":", "／": "/", "−": "-", "，": ",", "。": "."})


@dataclass(frozen=True, slots=True)
class Completion:
    """A chat completion.

    Attributes:
        text: The content of its message, thoughts included.
        tokens: The tokens of `text`, each with `token` and its likeliest alternatives in `top_logprobs`; empty where
            the server does not give them.
        is_cut: Whether the server stopped it at the longest length allowed.
        num_tokens: Tokens billed, 0 where the server does not say.
    """

    text: str
    tokens: Sequence[Mapping[str, Any]]
    is_cut: bool
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Found:
    """A rating or a verdict in a reply.

    Attributes:
        value: The rating, or how much the first response is preferred, in [0, 1].
        start: Its place in the text.
        is_last: Whether nothing follows it, so that a part of it may be missing if the reply was cut off.
        letter: The verdict, C for a tie; "" for a rating.
    """

    value: float
    start: int
    is_last: bool
    letter: str = ""


def read_completion(reply: Any) -> Completion | None:
    """The first choice of a chat completion; None if the reply is not one."""
    try:
        choice = reply["choices"][0]
        text = _content(choice["message"]["content"])
        tokens = list((choice.get("logprobs") or {}).get("content") or [])
        for entry in tokens:
            for other in entry.get("top_logprobs") or []:
                math.exp(float(other["logprob"]))
        return Completion(text, _aligned(tokens, text), choice.get("finish_reason") == "length", billed(reply))
    except MALFORMED:
        return None


def find_rating(text: str, scale: tuple[int, int]) -> Found | None:
    """The rating in a reply; None if it has none on the scale."""
    said, is_thinking = without_thoughts(text)
    if is_thinking:
        return None
    low, high = scale
    said = re.sub(rf"(?<![\d.]){low}\s*(?:-|–|—|~|\.\.|to|through)\s*{high}(?![\d.]*\d)", _blank, said)
    matches = _rating_matches(said, scale)
    values = {_number(match, scale) for match in matches}
    if len(values) != 1 or not low <= min(values) <= high or _TAKEN_BACK.search(said, matches[-1].end("value")):
        return None
    return Found(values.pop(), matches[-1].start("value"), _is_last(matches[-1], said))


def find_verdict(text: str) -> Found | None:
    """The verdict in a reply: A, B, or C for a tie; None if it has none."""
    said, is_thinking = without_thoughts(text)
    if is_thinking:
        return None
    matches = _verdict_matches(said)
    letters = {_letter_of(match["value"]) for match in matches}
    if len(letters) != 1 or _TAKEN_BACK.search(said, matches[-1].end("value")):
        return None
    letter = letters.pop()
    return Found(_WORTH[letter], matches[-1].start("value"), _is_last(matches[-1], said), letter)


def expected_rating(top_logprobs: Sequence[Mapping[str, Any]], scale: tuple[int, int]) -> float:
    """Mean rating under the probabilities of the ratings among the likeliest tokens of one place.

    Args:
        top_logprobs: The likeliest tokens, each with `token` and `logprob`.
        scale: Lowest and highest rating.

    Returns:
        NaN where ratings hold less than half of the probability: then the token is not the rating.
    """
    mass: dict[float, float] = {}
    for entry in top_logprobs:
        token = str(entry.get("token", "")).strip()
        if token.isascii() and token.isdigit() and scale[0] <= int(token) <= scale[1]:
            mass[int(token)] = mass.get(int(token), 0.0) + math.exp(float(entry["logprob"]))
    return _mean(mass)


def expected_verdict(tokens: Sequence[Mapping[str, Any]], found: Found) -> float:
    """Preference for the response shown first, in [0, 1], under the probabilities of the verdict's token.

    Args:
        tokens: The reply's tokens, each with `token` and its likeliest alternatives in `top_logprobs`.
        found: The verdict in the text.

    Returns:
        NaN where its token is not found, or the three letters hold less than half of that token's probability.
    """
    token, alternatives = token_at(tokens, found.start)
    if _letter(token) != found.letter:
        return math.nan
    mass: dict[float, float] = {}
    for entry in alternatives:
        letter = _letter(str(entry.get("token", "")))
        if letter in _WORTH:
            mass[_WORTH[letter]] = mass.get(_WORTH[letter], 0.0) + math.exp(float(entry["logprob"]))
    return _mean(mass)


def token_at(tokens: Sequence[Mapping[str, Any]], place: int) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The token over a place of the text, and its likeliest alternatives; "" and none where there is none."""
    end = 0
    for entry in tokens:
        token = str(entry.get("token", ""))
        end += len(token)
        if end > place:
            return token, entry.get("top_logprobs") or []
    return "", []


_WORTH = {"A": 1.0, "B": 0.0, "C": 0.5}  # of what was shown first


def _content(content: Any) -> str:
    """The text of a message, which may come in parts; parts that are thoughts are left out."""
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if part.get("type") in ("text", "output_text"))
    if not isinstance(content, str):
        raise TypeError("neither text nor parts")
    return content


def _aligned(tokens: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """The tokens of a text; servers also list those of thoughts, which they leave out of it."""
    words = [str(entry.get("token", "")) for entry in tokens]
    place = "".join(words).rfind(text) if text else -1
    if place < 0:
        return []
    kept: list[Mapping[str, Any]] = []
    for word, entry in zip(words, tokens, strict=True):
        if place < len(word):
            kept.append({**entry, "token": word[place:]} if place else entry)
        place = max(0, place - len(word))
    return kept


def _mean(mass: Mapping[float, float]) -> float:
    total = sum(mass.values())
    return sum(value * weight for value, weight in mass.items()) / total if total >= 0.5 else math.nan


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


_Matches = list[re.Match[str]]


def _rating_matches(said: str, scale: tuple[int, int]) -> _Matches:
    """The ratings of the first form in which the reply has any."""
    if (entries := _in_json(said, _RATED, _ANY_NUMBER)) is not None:
        return entries
    text = said.translate(_PLAIN)
    labeled = _judged(re.finditer(rf"(?i)(?<![a-z]){_LABEL}{_IS}{_ANY_NUMBER}{_AFTER}", text))
    lines = re.finditer(rf"(?im)^[^\w\n+-]*{_ANY_NUMBER}[^\w\n%]*$", text)
    sentences = re.finditer(
        rf"(?i)\b(?:gives?|gave|rated?|assign|award|deserves?|earns?|worth|gets?)\b[^.\n\d]{{0,60}}?{_NUMBER}{_AFTER}",
        text,
    )
    return (
        _last(_announced(re.finditer(rf"(?i)\[\[\s*{_ANY_NUMBER}\s*\]\]", text)))
        or _last(
            _announced(
                re.finditer(rf"(?i)(?:\\boxed\{{|<(?:rating|score|grade|answer)>)\s*{_ANY_NUMBER}\s*(?:\}}|<)", text)
            )
        )
        or _chief(labeled, text)
        or list(lines)
        or [one for one in sentences if not _NOT.search(text[: one.start("value")]) and not _is_part(one)]
        or _leading(text)
    )


def _is_part(match: re.Match[str]) -> bool:
    """Whether a rating is of one side of a response: "a 4 for clarity and a 2 for accuracy"."""
    return re.match(r"(?i)\s*(?:for|on)\b[^.\n]*\d", match.string[match.end() :]) is not None


def _chief(labeled: _Matches, text: str) -> _Matches:
    """Of several labeled ratings those of the whole; without one, the last if its label begins the last line."""
    whole = [match for match in labeled if match["whole"]]
    if whole or len({match["value"] for match in labeled}) < 2:
        return whole or labeled
    last = text.rstrip().rfind("\n") + 1
    return labeled[-1:] if not text[last : labeled[-1].start()].strip() else labeled


def _leading(text: str) -> _Matches:
    """A number that begins the reply; not the first item of a list."""
    match = re.match(rf"(?i)[^\w+-]*{_NUMBER}(?=\s*(?:[\n:;,–—!(]|[-.]\s|because\b|since\b|as\b))", text)
    if match is None or (match["value"] == "1" and text[match.end() :].startswith((".", ")", ":"))):
        return []
    return [match]


def _number(match: re.Match[str], scale: tuple[int, int]) -> float:
    """The value of a rating; NaN on another scale."""
    if match["of"] is not None and float(match["of"]) != scale[1]:
        return math.nan
    word = match["value"].lower()
    return float(_WORDS.index(word)) if word in _WORDS else float(word.replace(",", "."))


_JUDGED = (
    "verdict winner better betterresponse preferred preference choice answer judgment judgement decision result best"
).split()


def _verdict_matches(said: str) -> _Matches:
    """The verdicts of the first form in which the reply has any."""
    if (entries := _in_json(said, _JUDGED, rf"(?:(?!not?\b)\w+[ _-])?{_VERDICT}")) is not None:
        return entries
    text = said.translate(_PLAIN)
    labeled = re.finditer(
        r"(?<!correct )(?<!right )(?i:verdict|winner|judge?ment|preference|choice"
        r"|(?:better|best|preferred)(?:\s+(?:response|answer|one|option))?|answer)"
        rf"(?i:\s+is\s*:?|\s*[:=])\W*(?i:it'?s?\s+(?:is\s+)?)?(?:an?\s+|A\s+(?=[a-z]))?{_RESPONSE}?{_VERDICT}{_END}",
        text,
    )
    wins = re.finditer(
        rf"(?:^\W*|[.,;]\s|\b(?:but|and|while|whereas)\s|{_RESPONSE})(?P<value>[AB])\s+(?:is\s+(?:clearly\s+|slightly\s+|much\s+|the\s+)?(?:better|best|winner)|wins)\b",
        text,
    )
    prefers = re.finditer(rf"(?i:\b(?:prefer|choose|pick|select)\s+){_RESPONSE}?(?P<value>[AB])(?!\w){_END}", text)
    ties = re.finditer(
        r"(?i)\b(?P<value>(?:it(?:'s|\s+is)|they\s+are|are)\s+(?:an?\s+)?(?:tied?|draw|equally\s+(?:good|bad|helpful))"
        r"|neither\s+(?:response\s+|answer\s+)?is\s+better)\b",
        text,
    )
    return (
        _last(_announced(re.finditer(rf"(?i)\[\[\s*{_VERDICT}\s*\]\]", text)))
        or _last(_announced(re.finditer(rf"(?:\\boxed\{{|<(?:verdict|winner|answer)>)\s*{_VERDICT}\s*(?:\}}|<)", text)))
        or _last(_judged(labeled))
        or _last(re.finditer(rf"\A\W*{_VERDICT}(?!\s*[:=]\s*\d){_END}", text))
        or _last(re.finditer(rf"\n[^\w\n]*{_RESPONSE}?{_VERDICT}\W*\Z", text))
        or [*(one for one in (*wins, *prefers) if not _NOT.search(text[: one.start("value")])), *ties]
    )


def _letter_of(value: str) -> str:
    """A, B or C of a verdict as it was written."""
    if "=" in value or "≈" in value:
        return "C"
    letters = re.findall(r"[ABCabc]", value) if len(value) == 1 or re.search("[<>≫≪]", value) else ["C"]
    return str(letters[-1 if re.search("[<≪]", value) else 0]).upper()


def _letter(token: str) -> str:
    """The verdict that a token is; "" for any other."""
    plain = token.strip(" \n\t[]()*\"'.:#▁Ġ")
    return plain if plain in _WORTH else ""


def _judged(matches: Iterable[re.Match[str]]) -> _Matches:
    """The values that judge: no example ("Example output: [[A]]"), rubric ("[[A]] if A is better") or "not [[A]]"."""
    said = (m for m in matches if not _NOT_THIS.search(m.string, 0, m.start()))
    return [m for m in said if not _EXAMPLE.search(m.string, 0, m.start()) and not _RUBRIC.match(m.string, m.end())]


def _announced(matches: Iterable[re.Match[str]]) -> _Matches:
    """Of the values that judge those outside quotation marks, and of these those that a sentence announces, if any."""
    judged = _judged(matches)
    said = [m for m in judged if not any(q.start() < m.start() < q.end() for q in _QUOTED.finditer(m.string))] or judged
    return [m for m in said if _ANNOUNCING.search(m.string, 0, m.start())] or said


def _last(matches: Iterable[re.Match[str]]) -> _Matches:
    """The last of some matches, as a list; empty without any, and two where the reply leaves it open ("A or B")."""
    found = list(matches)
    is_open = len(found) > 1 and _EITHER.fullmatch(found[-1].string, found[-2].end(), found[-1].start())
    return found[-2:] if is_open else found[-1:]


def _is_last(match: re.Match[str], said: str) -> bool:
    """Whether nothing follows a value that would end it."""
    end = max(match.end(name) for name in match.re.groupindex if name in ("value", "of"))
    return said[end:].strip(" *`") in ("", ".", ",", "/")


def _in_json(said: str, names: Sequence[str], value: str) -> _Matches | None:
    """Entries of the last JSON object in a reply: those with one of the names, or its only one; None without one."""
    begin, end, place = -1, -1, said.find("{")
    while place >= 0:
        try:
            _, after = json.JSONDecoder().raw_decode(said, place)
            begin, end = place, after
        except (ValueError, RecursionError):
            after = place + 1
        place = said.find("{", after)
    if begin < 0:
        return None
    entry = re.compile(rf"(?i)[\"'](?P<key>[^\"'\\]*)[\"']\s*:\s*[\"']?\s*{value}\s*[\"']?(?=\s*[,}}\]])")
    entries = list(entry.finditer(said, begin, end))
    keys = [re.sub(r"[\W_]", "", match["key"].lower()) for match in entries]
    for prefix in ("overall", "final", "total", ""):
        named = [
            match
            for match, key in zip(entries, keys, strict=True)
            if key.removeprefix(prefix) in names and key.startswith(prefix)
        ]
        if named:
            return named
    return entries if len(entries) == 1 and not _CONTRARY.search(keys[0]) else []

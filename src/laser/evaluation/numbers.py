r"""Numbers in free text, read to the end of their expression or not at all.

"1,234.50", "$5", "-3", "3/4", "\frac{3}{4}", "2 1/2", "2½", "10^3", "3 \times 10^4", "50\%", "1 million" are numbers.
"12:30", "3:2", "5 or 6", "3 + 4", "5 feet 3 inches", "3,5", "5x", "0.333...", dates, versions and addresses hold digits
but are not one number, and their beginnings are not read either.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

MINUS_SIGNS = "\u2212\u2013\u2012\u2010\u2011\u02d7\u2796\ufe63\uff0d"
"""Characters written for a minus: signs, en and figure dash, hyphens, small and full-width hyphen-minus."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number that was read.

    Attributes:
        value: Exactly; of "25%" it is 1/4.
        is_percent: It has a percent sign.
        text: Its plain spelling: as written, without separators and currency; a fraction where it was an expression.
    """

    value: Fraction
    is_percent: bool
    text: str


class UnreadableError(ValueError):
    """An answer cannot be read as what it should be; the message is a clause that says why."""


_TOLERANCE = Fraction(1, 10**12)  # relative, between numbers that are not both whole: data round decimals
_LARGEST_POWER = 4000
_NEAR = 40  # characters before a number that say whether it is one
_LONGEST = 4300  # digits; a longer run is not an answer
_VULGAR = {c: Fraction(unicodedata.numeric(c)).limit_denominator(10) for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_MAGNITUDES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "lakh": 10**5,
    "crore": 10**7,
    "百": 10**2,
    "千": 10**3,
    "万": 10**4,
    "萬": 10**4,
    "亿": 10**8,
    "億": 10**8,
}

_SPELLED = {ord(c): "-" for c in MINUS_SIGNS}
_SPELLED |= {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != 0xFF0D}  # full-width forms
_SPELLED |= dict.fromkeys(map(ord, "\u200b\u200e\u200f\u2060\ufeff`€£¥₹₩₽₺₫₱¢"), "")
_SPELLED |= dict.fromkeys(map(ord, "\u00a0\u2007\u2008\u2009\u200a\u202f"), " ")
_SPELLED |= {
    ord("×"): "*",
    ord("·"): "*",
    ord("⋅"): "*",
    ord("⁄"): "/",
    ord("∕"): "/",
    ord("٪"): "%",
    ord("﹪"): "%",
    ord("٫"): ".",
    ord("٬"): ",",
}
_SPELLED |= {ord("’"): "'", ord("‘"): "'", ord("〜"): "~", ord("∶"): ":", ord("꞉"): ":"}

_CURRENCY_MILLIONS = re.compile(r"([$€£]\d[\d.,]*)\s?[mMbBkK](?![\w$]|[^$\n]*\$)")  # $1.5m, not a formula with meters

_LATEX = [
    (re.compile(r"<sup>([^<>]*)</sup>"), r"^{\1}"),
    (re.compile(r"<sub>([^<>]*)</sub>"), r"_{\1}"),
    (re.compile(r"</?[A-Za-z]\w*\s*/?>"), ""),
    (re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|operatorname|boxed|fbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\!|\\[()\[\]]|\{\}"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\(?:approx|simeq|sim)(?![A-Za-z])"), "≈"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\?\b(?:US|CA|AU|C|A|HK)?\\?\$|\\?\$"), ""),
]
_OVER = re.compile(r"\{?\s*(-?[\d,.]+)\s*\\over\s*([\d,.]+)\s*\}?")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d,.]+)\s*\}|(\d))\s*(?:\{\s*([\d,.]+)\s*\}|(\d))")
_WORDS = [
    (re.compile(r"(?<=\d)\*\*(?=-?\d)"), "^"),
    (re.compile(r"\*\*|__|(?<![A-Za-z0-9])_(?=\d)"), ""),
    (re.compile(r"(?:^|(?<=[:=(\s]))⁻\s*(?=[\d.])|(?:^|(?<=[:=(]))\s*[—―](?=[\d.])"), "-"),
    (re.compile(r"\b(?:minus|negative)\s+(?=[\d.])", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\d)\s*-?\s*(?:percent|per cent|pct)\b", re.IGNORECASE), "%"),
    (re.compile(r"\b(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CHF|CAD|AUD|Rs\.?)\s?(?=-?\d)"), ""),
]

_DIGITS = r"""(?:
    (?:[1-9]\d{0,2}(?:,\d{3})+ | [1-9]\d?(?:,\d{2})+,\d{3} | [1-9]\d{0,2}(?:[ ]\d{3})+ | [1-9]\d{0,2}(?:'\d{3})+
      | [1-9]\d{0,2}(?:_\d{3})+)(?!\d)(?:\.\d+)?
    | \d+(?:\.\d+)? | \.\d+)"""
_POWER = r"(?:\s?\^\s?(?:\{\s?[-+]?\d+\s?\}|\(\s?[-+]?\d+\s?\)|[-+]?\d+)|[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
_NUMBER = re.compile(
    rf"""
    (?<![A-Za-z0-9_.\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u024F\u0370-\u03FF\u0400-\u04FF])  # not inside a word or a number
    (?<![A-Za-z]-)(?<![A-Za-z)\]}}][\^_])(?<![A-Za-z)\]}}][\^_]\{{)  # GPT-4, x^2, a_{{1}}
    (?P<sign>[-+](?:\s*\()?\s*)?
    (?: (?P<whole>\d+)(?:\s+and)?\s+(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])
      | (?P<count>\d+)?\s?(?P<vulgar>[{"".join(_VULGAR)}])
      | (?P<base>{_DIGITS})
        (?P<power>{_POWER})?
        (?P<exponent>[eE][-+]?\d+(?![\dA-Za-z]))?
        (?:\s?[*xX]\s?10(?P<ten>{_POWER}))?
        (?:\s?/\s?(?P<divisor>{_DIGITS}))?
    )
    (?P<magnitude>(?:\s?-?(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore)s?\b|\s?[百千万萬亿億])*)
    (?P<percent>\s*%)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|(?:Nov|Dec)(?:ember)?)\b\.?"
)
_FUNCTION = (
    r"(?:\b(?:log|ln|sin|cos|tan|exp|sqrt|root\s+of|(?:less|more|fewer|greater)\s+than|over|under|above|below)\s*\(?"
    r"|\b(?:floor|ceil|ceiling|round|abs|max|min|gcd|lcm)\s?\()"
)
_SHARE = r"\b(?:twice|thrice|double|triple|not|half(?:\s+of)?|(?:third|quarter|fourth|fifth|tenth)s?\s+of)\s"
_SPELLED_WORD = (
    r"(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|twenty"
    r"|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|dozen)\b"
)
SPELLED_NUMBER = rf"\b(?<!\d[ -])(?<!per ){_SPELLED_WORD}(?:[- ](?:and )?(?:one\b|{_SPELLED_WORD}))*+(?!-?\w|\s?\(\d)"
_TAINT_BEFORE = re.compile(
    rf"(?:{_FUNCTION}|{_SHARE}|[<>≤≥≠±√∛∜⌊⌈^\\{{]|\\[A-Za-z]+\[?|\b{_MONTH}\s|[A-Za-z)\]]\s?[*/÷+]"
    rf"|(?i:{SPELLED_NUMBER}(?:\s+and)?\s|\b(?:step|equation|eq\.|question|figure|option)\s*[#(]?))\s*$"
)
_SIGNED_TWICE = re.compile(r"(?:[-+]\s*\(?|\|)$")  # --5, -(-5), |-5|
_THOUSANDS_AND_MORE = (  # words and signs that are not read, so that "5 Mrd" is not 5
    r"\s?(?:[만억조천]|(?i:(?:mil|mill|mille|mila|mln|mio|mld|mrd|bln|trn|tn|tausend|duizend|ribu|juta|nghìn|triệu|tỷ)\b"
    r"|milli(?:on|ard)\w+|miliard?\w*|mili[oó]n\w*|milh\w+|mill[oó]n\w*|milj(?:oen|ard)\w*|mily(?:on|ar)\w*|bilh\w+"
    r"|(?:quadr|quint|sext|sept|oct|non|dec)illion\w*|тыс|млн|млрд|миллион|миллиард|tys\b|tysi[ąę]c|ألف|مليون|लाख|करोड़|हज़ार))"
)
_SIGNED_BEFORE = re.compile(r"(?:^|[^\w)\]%\s])\s*$|\b(?:is|are|be|was|equals|to|of|by)\s+$", re.IGNORECASE)
_TAINT_AFTER = re.compile(
    rf"""
    \s?[:^]\s?[\w{{(\\]  | \.+\d | \s[xyz](?!\w)
    | \)+\s?[*/÷^⁰¹²³⁴-⁹⁻] | \)\(?\d | \s?[⁰¹²³⁴-⁹⁻↑]
    | \.(?:\(\d+\)|\\[A-Za-z]) | \s\(?(?:repeating|recurring|periodic)\b
    | —\d | \s?(?:-+>|[→⇒⟶])\s?[-\d] | \s?[rR]\s?\d | \s?[eE][-+]?\d | [oO]\d
    | \s?/\s?(?:[/(\\√π]|[xyzn]\b)
    | \s(?:more|less|fewer|greater)\sthan\s\d | (?<=\d\s\d{{3}})-[A-Za-z] | (?:st|nd|rd|th)\s(?:power|root)\b
    | {_THOUSANDS_AND_MORE} | \s?\+\s?/?- | \spi\b | [hH]\d | [\u0300-\u036f\u2080-\u2089\u20d0-\u20ff]
    | [xyzniekKMBbπ√∞](?![A-Za-z]) | \s?(?:bn|mn|doz|dz|grand|googol|[a-z]*illion)\b | [({{\\_!]\S
    | \s?\\[A-Za-z]+ | [‰十]
    | \s?[√π∞±]  | \s?\*\s?\w
    | \s?(?:[ap]\.?m\b\.?|AM\b|PM\b|o'clock) | \s?(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:\s|$|[,.])
    | [\s-](?:and\sa\s)?(?:half|halves|(?:thir|four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w+teen|hundred|\w+[smr]and
      |\w+illion)(?:ds|ths|(?:d|th)(?!\s(?!of\b)[A-Za-z])))\b
    | \s(?:squared|cubed|factorial|score|gross|tens|twenties|myriads?|baker's|k)\b
    | \sto\sthe\s(?:(?:\w+\s)?power\b|-?\d|(?:four|fif|six|seven|eigh|nin|ten)th\b)
    | (?:\s\w+)?\sbelow\szero
    """,
    re.VERBOSE,
)
_NO_UNIT = "because|since|as|so|for|if|when|where|after|before|with|from|than|at|on|are|is|were|was|then|means"
_GLUE = re.compile(
    rf"""
    [ \t]* (?: [-+*/÷^:,;&~'"%°]\s?  | [ ]:[ ] | \.\.+ | …
      | (?:to|or|and|by|x|vs\.?|versus|times|plus|minus|over|out[ ]of|of|through|until|per|in|divided[ ]by)[ ]
      | (?!(?:{_NO_UNIT})\b)[A-Za-z'"°%]+\.?[ ]?(?:and[ ]|or[ ]|to[ ]|,[ ]|[-+*/÷][ ]?)?
      | (?:[ ]?[A-Za-z]+){{1,3}},?[ ](?:and|or)[ ] | ,?[ ][(]?or[ ]
    ) [ ]* [(]? | [ \t]*
    """,
    re.VERBOSE | re.IGNORECASE,
)
_EQUALS = re.compile(r"[=≡]")
_ASIDE = re.compile(r"\s*(?:[,;(—]|\b(?:because|since|as|where)\b)", re.IGNORECASE)
_EQUATIONS = re.compile(r"=[^=]*(?:[,;]|\b(?:and|or)\b)\s*[A-Za-z]\w*\s*=")
_OR = re.compile(r"\bor\b")
RETRACTING = (
    r"[?.,;!…—-]\s*(?:no[,.]|(?:no\s+wait|wait|actually|sorry|correction|oops|hmm|I\s+mean|now|finally)\b)[^.]{0,100}?"
)
_RETRACTED = re.compile(rf"{RETRACTING}\d", re.IGNORECASE)
NO_ANSWER = re.compile(
    r"\bno\s+(?:(?:real|integer|valid|such)\s+)?(?:solutions?|answers?|numbers?)\b"
    r"|\b(?:can\s?not|can['’]t|impossible\s+to)\s+(?:be\s+)?(?:determin|solv|find|found|answer|comput|calculat|know|say)"
    r"|\b(?:not\s+enough|insufficient)\s+(?:information|data)\b|\b(?:don['’]t|do\s+not)\s+know\b"
    r"|^\W*(?:unknown|undefined|indeterminate|none|nothing)\b|\bN/A\b|\bdo(?:es)?\s+not\s+exist\b|\bDNE\b|\b(?:is|remains)\s+(?:unknown|undefined|indeterminate)\b",
    re.IGNORECASE,
)
_REMAINDER = re.compile(r"[\s.,;!*_\"'(){}\[\]°]*")


def read_number(text: str, *, last: bool = False) -> Number:
    """The number that an answer states.

    Args:
        text: What was said. Of an equation the right side counts, or the left one where only that is a number.
        last: Read the last number of the text, as of a whole response; otherwise the first.

    Raises:
        UnreadableError: There is no number, or what is there is more than one number.
    """
    plain = plain_text(text)
    if last:
        return number_of(plain, -1)
    retracted = _RETRACTED.search(plain)
    if retracted is not None and any(c.isdigit() for c in plain[: retracted.start()]):
        raise UnreadableError("it takes back what it said first")
    if NO_ANSWER.search(plain):
        raise UnreadableError("it says that there is no answer")
    return percent_if_said(_stated(plain), plain)


def _stated(plain: str) -> Number:
    if _EQUATIONS.search(plain):
        raise UnreadableError("there is more than one equation")
    sides = _EQUALS.split(plain)
    if len(sides) == 1:
        return number_of(*_exact_side(plain))
    start = numbers_in(sides[0])
    if start and not sides[0][: start[0][0].start()].strip(" (") and _ASIDE.match(sides[0], start[0][-1].end()):
        return number_of(sides[0], 0)
    try:
        return number_of(*_exact_side(sides[-1]))
    except UnreadableError:
        return number_of(sides[0], 0)


def whole_number_text(text: str) -> Number | None:
    """The value of a text that is one number, such as a gold answer; None for any other text."""
    plain = plain_text(text).strip()
    clusters = numbers_in(plain)
    if len(clusters) != 1 or len(clusters[0]) != 1:
        return None
    (match,) = clusters[0]
    rest = plain[: match.start()] + plain[match.end() :]
    try:
        return number_of(plain, 0) if _REMAINDER.fullmatch(rest) else None
    except UnreadableError:
        return None


def same_number(answer: Number, gold: Number) -> bool:
    """Whether two numbers are equal, whole ones exactly.

    Where only one has a percent sign it is compared with it and without it: data write percents both ways.
    """
    factors = (Fraction(1), Fraction(1, 100), Fraction(100)) if answer.is_percent != gold.is_percent else (Fraction(1),)
    return any(_equal(answer.value * factor, gold.value) for factor in factors)


def _equal(first: Fraction, second: Fraction) -> bool:
    if first.denominator == second.denominator == 1:
        return first == second
    return abs(first - second) <= _TOLERANCE * max(abs(first), abs(second))


def plain_text(text: str) -> str:
    """The text with one spelling for digits, minus, spaces, LaTeX and currency."""
    text = re.sub(r"[ \t]{3,}", "  ", html.unescape(text))
    text = _CURRENCY_MILLIONS.sub(r"\1M", text)
    text = "".join(str(unicodedata.decimal(c)) if not c.isascii() and c.isdecimal() else c for c in text)
    text = text.translate(_SPELLED)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = _FRACTION.sub(lambda match: f" {match[1] or match[2]}/{match[3] or match[4]}", text)
    text = _OVER.sub(r" \1/\2", text)
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    text = text.strip()
    return text[1:-1] if text.startswith("{") and text.endswith("}") else text


def _exact_side(text: str) -> tuple[str, int]:
    """Of "1/3 ≈ 0.333" the left side, of "x ≈ 0.333" the right one, and which number of it is meant."""
    left, _, right = text.partition("≈")
    return (left, 0) if _NUMBER.search(left) or not right else (right, 0)


def numbers_in(text: str) -> list[list[re.Match[str]]]:
    """Numbers in the text, those that belong to one expression together."""
    clusters: list[list[re.Match[str]]] = []
    for match in _NUMBER.finditer(text):
        if clusters and _GLUE.fullmatch(text, clusters[-1][-1].end(), match.start()):
            clusters[-1].append(match)
        else:
            clusters.append([match])
    return clusters


def number_of(text: str, index: int) -> Number:
    """The number of one cluster. Raises UnreadableError where it is more than a number."""
    clusters = numbers_in(text)
    if not clusters:
        raise UnreadableError("there is no number")
    cluster = clusters[index]
    first, end = cluster[0], cluster[-1].end()
    before = text[max(0, first.start() - _NEAR) : first.start()]
    shown = f"{before[-3:]}{text[first.start() : end + 8]}".strip()[:60]
    tainted = _TAINT_BEFORE.search(before) or _TAINT_AFTER.match(text, end)
    dashed = first["sign"] is not None and (_is_dash(first["sign"], before) or _SIGNED_TWICE.search(before))
    recurring = text.startswith(("...", "…"), end) and "." in cluster[-1].group()
    if tainted or dashed or recurring or (len(cluster) > 1 and not _is_said_twice(cluster, text)):
        raise UnreadableError(f"{shown!r} is not one number")
    return _value(first, shown)


def _is_said_twice(cluster: list[re.Match[str]], text: str) -> bool:
    """Whether the numbers are one value in several forms: "3/4, or 0.75"."""
    between = [text[one.end() : other.start()] for one, other in pairwise(cluster)]
    return all(_OR.search(words) for words in between) and len({_value(one, "").value for one in cluster}) == 1


def percent_if_said(number: Number, text: str) -> Number:
    """The number as the percentage that the plain text says too: of "0.51 (51%)" 51%, which is compared both ways."""
    said = (_value(match, match[0]) for match in _NUMBER.finditer(text) if match["percent"])
    return next((percent for percent in said if percent.value == number.value), number)


def _is_dash(sign: str, before: str) -> bool:
    """Whether the sign of a number is a dash or an operator behind a word: "total - 5"."""
    return sign.endswith(" ") and _SIGNED_BEFORE.search(before) is None


def _value(match: re.Match[str], shown: str) -> Number:
    if len(match.group()) > _LONGEST:
        raise UnreadableError("the number is too long")
    negative = (match["sign"] or "").startswith("-")
    try:
        value = _magnitude(match) * math.prod(
            _MAGNITUDES[word] for word in re.findall("|".join(_MAGNITUDES), match["magnitude"].lower())
        )
        value = (-value if negative else value) / (100 if match["percent"] else 1)
        return Number(value, match["percent"] is not None, _spelling(match, value))
    except (ZeroDivisionError, OverflowError, ValueError) as error:  # ValueError: more digits than Python converts
        raise UnreadableError(f"{shown!r} has no value") from error


def _magnitude(match: re.Match[str]) -> Fraction:
    """Absolute value, without the words and the percent sign behind it."""
    if match["whole"] is not None:
        return int(match["whole"]) + Fraction(int(match["top"]), int(match["bottom"]))
    if match["vulgar"] is not None:
        return int(match["count"] or 0) + _VULGAR[match["vulgar"]]
    value = _decimal(match["base"] + (match["exponent"] or ""))
    if match["power"] is not None:
        value = _raised(value, match["power"])
    if match["ten"] is not None:
        value *= _raised(Fraction(10), match["ten"])
    return value / _decimal(match["divisor"]) if match["divisor"] is not None else value


def _decimal(text: str) -> Fraction:
    digits = re.sub(r"[,' _]", "", text)
    exponent = re.search(r"[eE]([-+]?\d+)$", digits)
    if exponent is not None and (len(exponent[1]) > 5 or abs(int(exponent[1])) > _LARGEST_POWER):
        raise OverflowError
    return Fraction(digits)


def _raised(base: Fraction, power: str) -> Fraction:
    digits = re.sub(r"[\s^{}()]", "", power.translate(_SUPERSCRIPTS))
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if len(digits) > 5 or abs(int(digits)) * bits > 4 * _LARGEST_POWER:
        raise OverflowError
    return base ** int(digits)


def _spelling(match: re.Match[str], value: Fraction) -> str:
    """Digits as written where there is nothing else; otherwise the value."""
    percent = "%" if match["percent"] else ""
    special = ("whole", "vulgar", "power", "ten", "divisor")
    if match["magnitude"] or any(match[name] is not None for name in special):
        return f"{value * 100 if percent else value}{percent}"
    sign = (match["sign"] or "").strip(" (")
    return sign + re.sub(r"[,' _]", "", match["base"]) + (match["exponent"] or "") + percent

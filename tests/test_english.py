"""Words that readers stumble over are in no page, help text, message, docstring, comment or name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = ("src", "docs", "examples", "benchmarks", "configs", "tests")
FILES = sorted(
    path
    for tree in TREES
    for path in (ROOT / tree).rglob("*")
    if path.suffix in {".py", ".md", ".toml", ".html"} and path.name != "test_english.py"
)
FILES += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
FILES += [ROOT / name for name in ("Makefile", "pyproject.toml", "mkdocs.yml")]
INSTEAD = {
    r"mend(s|ed|ing)?": "fix",
    r"rightly": "correctly",
    r"whoever": "the one who",
    r"of (one's|your|its|their) own": "custom, or your",
    r"go(es)? on(?! [a-z]+ing)": "continue",
    r"let[ _]go": "release",
    r"(is|are|was|be) told": "receives, or learns",
    r"for ever": "forever",
    r"befell": "happened to",
    r"so many": "this many",
    r"stands? in": "replaces, or is in",
    r"as (it|they) stands?": "unchanged",
    r"wants": "needs",
    r"nobody": "no one",
    r"somebody": "another user",
    r"at hand": "available",
    r"lies?": "is, or is stored",
    r"beside": "next to",
    r"(?<!name of `)Weightless": "a name that says what it does",
    r"own_\w+": "custom_*",
    r"(?<!there )(is|are|was|were) no (?!longer|more|other)\w+": "is not a",
}
BANNED = {word: re.compile(rf"(?<!\w)({word})(?!\w)", re.IGNORECASE) for word in INSTEAD}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word(path):
    found = [
        f"line {number}: {match.group(0)!r}, write {INSTEAD[word]!r}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word, pattern in BANNED.items()
        if (match := pattern.search(line))
    ]
    assert found == []


def test_every_banned_word_is_found():
    words = ["mended", "rightly", "whoever", "of its own", "goes on", "let go", "is told", "for ever", "befell"]
    words += ["so many", "stands in", "as it stands", "wants", "nobody", "somebody", "at hand", "lies", "beside"]
    words += ["Weightless", "own_selector", "is no judge"]
    assert len(words) == len(BANNED)
    assert [word for word in words if not any(pattern.search(word) for pattern in BANNED.values())] == []

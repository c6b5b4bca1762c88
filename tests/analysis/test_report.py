"""The page: complete, self-contained, with numbers under pictures, and text of a model is never markup."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from laser.analysis.records import read_run
from laser.analysis.report import write_report
from laser.analysis.report.figure import as_png, as_svg
from laser.analysis.report.run import examples, run_page
from laser.core.errors import DataError, RunDirectoryError
from written import NAMES, evaluation, step, typical, write_run

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]></svg><script>alert(1)</script>",
    "--><script>alert(1)</script><!--",
    "$\\frac{1}{2}$ costs $5 & $6",
    "_hidden",
    "\x1b[2J\x00\u202e",
    "url(http://evil.example/x.png)",
    "東京 👩‍💻",
    "long " * 60,
    "\ud800",
)
VOID = {"meta", "br", "img", "input", "link", "hr", "rect", "path", "use"}


class Tree(HTMLParser):
    """Elements, attributes and text, and whether elements are closed in the order they were opened."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text, self.broken = [], [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID - {"path", "use", "rect"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(path, **options):
    return write_report(path, **options).page.read_text()


def rich(folder, text="words", names=NAMES, category="maths"):
    steps = typical(12, names, text=text, category=category)
    steps[3]["quarantined"] = {names[1]: text}
    steps[5]["agreement"] = [{"first": names[0], "second": names[1], "alike": 30, "judged": 40}]
    scores = {names[0]: [1.0, 2.0], names[1]: [3.0, 1.0]}
    steps[5]["disagreement"] = {"prompt": text, "responses": [text, "other"], "scores": scores, "strength": 2.0}
    rows = [evaluation(0, 20, category=category), evaluation(12, 30, category=category)]
    return write_run(folder, steps, rows, names=names)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(rich(tmp_path_factory.mktemp("page") / "rich0"))


@pytest.mark.slow
def test_the_page_has_every_section_and_picture(page):
    tree = Tree(page)
    titles = [attributes["id"] for attributes in tree.named("h2")]
    assert titles == [
        "useful", "chosen", "progress", "agreement", "scores", "examples", "left-out", "time", "configuration"
    ]  # fmt: skip
    pictures = tree.named("svg")
    assert len(pictures) == 8
    assert tree.broken == []
    for words in (
        "a gain beyond chance",
        "good earned the highest",
        "bad was put in quarantine",
        "12 s",
        "Tokens: 1200",
    ):
        assert words in tree.text
    assert "75.0%" in tree.text  # agreement: 30 of 40


def test_it_is_one_page_without_network_or_script(page):
    tree = Tree(page)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in tree.elements}
    for tag, attributes in tree.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png"))
    policy = next(one["content"] for one in tree.named("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "http:" not in page.replace("http://www.w3.org/", "")


@pytest.mark.slow
def test_whatever_a_model_or_a_data_set_wrote_is_text(tmp_path, page):
    """Prompts, responses, reasons, categories and names of reward models, in tables, pictures and paragraphs."""
    steps = []
    for number, text in enumerate(HOSTILE):
        one = step(number, HOSTILE, chosen=number, category=text, text=text, quarantined={text: text})
        scores = {text: [1.0, 2.0], HOSTILE[number - 1]: [3.0, 1.0]}
        steps.append(
            {**one, "disagreement": {"prompt": text, "responses": [text, text], "scores": scores, "strength": 1.0}}
        )
        steps[-1]["agreement"] = [{"first": text, "second": HOSTILE[number - 1], "alike": 3, "judged": 4}]
    row = {**evaluation(0, 3), "by_category": dict.fromkeys(HOSTILE, 0.5)}
    given = Tree(page_of(write_run(tmp_path, steps, [row], names=HOSTILE, config={"note": list(HOSTILE)})))
    drawn = {"use", "path", "g", "defs", "clippath", "pattern", "rect"}
    assert {tag for tag, _ in given.elements} - drawn == {tag for tag, _ in Tree(page).elements} - drawn
    assert len(given.named("svg")) == 8
    assert given.broken == []
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]", given.text)
    for text in HOSTILE:
        assert text.isprintable() is False or given.text.count(text.strip()) > 5


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:xlink:href="#|href="#|url\(#)([^")]+)', page)
    used += [name for names in re.findall(r'aria-labelledby="([^"]+)"', page) for name in names.split()]
    assert len(used) > 50
    assert set(used) <= set(ids)


def test_pictures_have_names_descriptions_and_numbers(page):
    tree = Tree(page)
    assert all(one["role"] == "img" and one["aria-labelledby"] for one in tree.named("svg"))
    assert len(tree.named("desc")) == 8
    assert len(tree.named("table")) >= 8 + 3
    assert len(tree.named("caption")) == len(tree.named("table"))
    assert {one.get("scope") for one in tree.named("th")} == {"col", "row"}
    assert all(one.get("tabindex") == "0" for one in tree.named("div") if one.get("class") == "scroll")


def test_pictures_take_the_colors_of_the_page_and_hatches_tell_them_apart(tmp_path):
    pictures = run_page(read_run(rich(tmp_path))).pictures()
    svgs = {picture.name: as_svg(picture, "p") for picture in pictures if picture.name.startswith("utilization")}
    for svg in svgs.values():
        assert "currentColor" in svg
        assert "#010203" not in svg
        assert "<metadata" not in svg
    assert "<pattern" in svgs["utilization"]
    assert "#0072b2" in svgs["utilization"].lower()


@pytest.mark.slow
def test_the_same_run_gives_the_same_page_and_pictures(tmp_path, page):
    path = rich(tmp_path / "rich0")
    assert page_of(path) == page
    first, second = (as_png(run_page(read_run(path)).pictures()[0]) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_pngs_are_written_where_asked(tmp_path):
    written = write_report(rich(tmp_path / "run"), pictures=tmp_path / "png")
    assert set(written.pictures) == set((tmp_path / "png").iterdir())
    assert {path.stem for path in written.pictures} == {
        "bandit-reward", "utilization", "utilization-over-time", "loss", "dev-metric", "agreement", "distributions",
        "time",
    }  # fmt: skip
    for path in written.pictures:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 300_000


@pytest.mark.slow
def test_records_without_the_newer_fields_are_reported(tmp_path):
    steps = typical(5)
    for one in steps:
        for name in ("distributions", "agreement", "disagreement", "quarantined", "unfinished_responses"):
            del one[name]
    tree = Tree(page_of(write_run(tmp_path, steps)))
    assert "no two reward models scored the same responses" in tree.text
    assert "The records of this run do not hold distributions." in tree.text
    assert "No dev metric was measured." in tree.text
    assert "largest and the smallest margins" in tree.text


@pytest.mark.slow
def test_odd_runs_are_reported(tmp_path):
    """One batch; no losses, rewards or pairs; numbers at the end of what a float holds."""
    nothing = step(0, loss=None, pairs=0, example=None, bandit_rewards=[None], seconds={}, scored={}, tokens={})
    nothing["distributions"] = {"scores": [], "margins": [], "logp_margins": None}
    assert "1 batches" in page_of(write_run(tmp_path / "one", [nothing]))
    huge = typical(4)
    for one in huge:
        one["loss"] = 1e300
        one["distributions"]["scores"][0]["deciles"] = [-1e308, *[0.0] * 9, 1e308]
        one["distributions"]["margins"][0]["deciles"] = [None] * 11
    page_of(write_run(tmp_path / "huge", huge))
    many = tuple(f"model {index}" for index in range(11))
    page_of(write_run(tmp_path / "many", typical(30, many), names=many))
    empty = step(0)
    empty["selection"]["categories"] = [{"maths": 0}]
    page_of(write_run(tmp_path / "empty", [empty]))


def test_examples_are_where_models_disagree_most_or_margins_are_extreme(tmp_path):
    _, found = examples(read_run(rich(tmp_path / "a")))
    assert [one.headline for one in found.examples] == ["Batch 6: good against bad"]
    steps = [step(n, text=f"prompt {n}") for n in range(20)]
    _, found = examples(read_run(write_run(tmp_path / "b", steps)))
    assert [one.prompt for one in found.examples] == [f"prompt {n}" for n in (19, 18, 17, 16, 3, 2, 1, 0)]


BENCH = {
    "num_pairs": 100,
    "accuracy": {"good": 0.8, "length only": 0.4},
    "interval": {"good": [0.7, 0.87], "length only": [0.3, 0.5]},
    "by_category": {"good": {"chat": 0.8}, "length only": {"chat": 0.4}},
    "counts": {"chat": 100},
    "agreement": {"good": {"good": 1.0, "bad": 0.625}, "bad": {"good": 0.625, "bad": None}},
    "unscored": {"good": 0},
    "failed": {"ugly": "no such model"},
}


@pytest.mark.slow
def test_numbers_of_rewardbench_are_shown_alongside(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    tree = Tree(page_of(write_run(tmp_path / "run", typical(4)), bench=tmp_path / "bench.json"))
    assert "Accuracy on labeled pairs" in tree.text
    assert "62.5%" in tree.text
    assert "ugly could not be used: no such model" in tree.text


def test_what_the_probe_found_and_signs_of_over_optimization_are_shown(tmp_path):
    run = rich(tmp_path / "run", category="<b>maths")
    found = {"good": {"accuracy": 0.9, "low": 0.8, "high": 0.96, "pairs": 60}}
    found["bad"] = {"accuracy": None, "low": None, "high": None, "pairs": 0}
    probe = {
        "labels": "gold",
        "sources": {"<b>maths": "gold"},
        "accuracy": {"<b>maths": found},
        "over_optimised": [{"message": "over-optimised: answers to <b>maths grew", "what": "length"}],
    }
    counts = {"num_batches": 12, "metric_before": 0.5, "metric_after": 0.7, "scored": {}, "tokens": {}, "seconds": {}}
    (run / "summary.json").write_text(json.dumps({**counts, "probe": probe}))
    tree = Tree(page_of(run))
    assert [attributes["id"] for attributes in tree.named("h2")][1] == "probe"
    assert tree.broken == []
    rows = " ".join(tree.text.split())
    assert "<b>mathsgood0.900.80 to 0.9660gold" in rows
    assert rows.count("over-optimised: answers to <b>maths grew") == 2, "in the first paragraphs too"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"num_pairs": 3}', json.dumps({**BENCH, "agreement": 3})])
def test_a_bench_file_that_is_none_is_a_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "bench.json").write_text(content)
    with pytest.raises(DataError, match="--bench"):
        write_report(write_run(tmp_path / "run", typical(4)), bench=tmp_path / "bench.json")


def test_runs_that_cannot_be_reported_are_named(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds neither a run"):
        write_report(tmp_path)
    with pytest.raises(RunDirectoryError, match="holds neither a run"):
        write_report(tmp_path / "nowhere")
    write_run(tmp_path, [])
    with pytest.raises(RunDirectoryError, match="has not finished a batch"):
        write_report(tmp_path)
    write_run(tmp_path, [], tail="junk\n")
    with pytest.raises(RunDirectoryError, match="1 damaged line"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot write"):
        write_report(write_run(tmp_path / "run", typical(2)), tmp_path / "file" / "page.html")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "steps.jsonl", "../thesis.md", "../empty"])
def test_only_an_earlier_report_is_replaced(tmp_path, name):
    run = write_run(tmp_path / "run", typical(2))
    (tmp_path / "thesis.md").write_text("years of work")
    (tmp_path / "empty").write_text("")
    before = (run / name).read_bytes()
    with pytest.raises(RunDirectoryError, match=r"is not a report, so laser does not replace it; choose another --out"):
        write_report(run, run / name)
    assert (run / name).read_bytes() == before
    (tmp_path / "page.html").write_text("<!DOCTYPE HTML>an earlier report")
    assert "an earlier report" not in write_report(run, tmp_path / "page.html").page.read_text()
    write_report(run, tmp_path / "page.html")


@pytest.mark.slow
def test_an_unwritable_place_is_reported_with_its_option(tmp_path):
    run = write_run(tmp_path / "run", typical(2))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"file \(there is a file of that name\); choose another --png"):
        write_report(run, pictures=tmp_path / "file")
    with pytest.raises(RunDirectoryError, match=r"\(Is a directory\); choose another --out"):
        write_report(run, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_have_the_mode_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        written = write_report(write_run(tmp_path / "run", typical(2)), pictures=tmp_path / "png")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (written.page, *written.pictures)} == {mode}


@pytest.mark.slow
def test_two_reports_at_once_name_damaged_lines_and_leave_one_whole_page(tmp_path):
    lines = [json.dumps(one) for one in typical(8)]
    lines[2] = lines[2].replace('"pairs"', '"pa\x1b[31m<b>rs"')
    write_run(tmp_path, [])
    (tmp_path / "steps.jsonl").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "laser.cli.main", "report", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0
        assert "left out: steps.jsonl line 3: not JSON" in err
        assert "\x1b" not in err
        assert f"report: {tmp_path}/report.html" in out
        assert f"pictures: {tmp_path}/report (" in out
    tree = Tree((tmp_path / "report.html").read_text())
    assert tree.broken == []
    assert "steps.jsonl line 3" in tree.text
    assert list(tmp_path.rglob("*.tmp")) == []

"""The pages in a real browser: silent, without network, readable in light and dark, on a phone, by keyboard."""

import json
import threading

import numpy as np
import pytest

from browser import FAINT_TEXT, browser, opened, tab_through, until
from laser.analysis.follow import Watch
from laser.analysis.report import write_report
from laser.analysis.server import LiveServer
from written import evaluation, step, typical, write_run

pytestmark = pytest.mark.slow

NAMES = ("a name of a reward model that is long", "b", "c", "d")


def rich(folder):
    steps = []
    for number, one in enumerate(typical(24, NAMES, text="word " * 100 + "x" * 200)):
        scores = {"b": [1.0, 2.0], "c": [3.0, 1.0]}
        alike = [{"first": "b", "second": "c", "alike": number, "judged": 30}]
        found = {"prompt": "p " * 300, "responses": ["r" * 600, "<b>no</b>"], "scores": scores, "strength": 1.0}
        steps.append({**one, "agreement": alike, "disagreement": found, "quarantined": {"d": "e" * 300}})
    return write_run(folder, steps, [evaluation(0, 10), evaluation(12, 20), evaluation(24, 30)], names=NAMES)


@pytest.fixture(scope="module")
def started():
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(rich(tmp_path_factory.mktemp("rich"))).page


@pytest.fixture
def live(tmp_path):
    with LiveServer(Watch(rich(tmp_path / "run"))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_the_report_is_silent_self_contained_and_readable(started, report, scheme, width):
    with opened(started, report, width=width, scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        contrast = page.evaluate(FAINT_TEXT)
        assert contrast["seen"] > 300
        assert contrast["found"] == []
        assert page.evaluate("getComputedStyle(document.body).colorScheme || 'x'")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
        assert page.evaluate("document.querySelectorAll('svg text').length") > 50
        assert page.complaints == []
        assert page.asked == [report.resolve().as_uri()]


def test_everything_in_the_report_is_reached_by_tab_in_the_order_of_reading(started, report):
    with opened(started, report) as page:
        reached = tab_through(page)
        assert [place for place, _, _ in reached] == list(range(reached[0][1]))
        assert len(reached) > 20
        assert all(ring for _, _, ring in reached)


def test_the_skip_link_leads_past_the_navigation(started, report):
    with opened(started, report) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.getElementById('main').contains(document.activeElement)")
        page.evaluate("document.querySelector('.scroll').focus()")
        assert page.evaluate("document.activeElement.getAttribute('aria-label').length") > 3


def test_screen_readers_find_names_of_pictures_tables_and_landmarks(started, report):
    with opened(started, report) as page:
        tree = page.locator("body").aria_snapshot()
        assert "navigation" in tree
        assert "main" in tree
        assert tree.count("- img ") >= 8
        assert 'img "Loss' in tree
        assert tree.count("table") >= 3


def test_numbers_on_the_heat_map_stand_out_from_their_cells():
    import matplotlib

    from laser.analysis.report.comparisons import ink_on

    def light(color):
        rgb = np.array(matplotlib.colors.to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for value in np.linspace(0, 1, 101):
        cell, ink = light(matplotlib.colormaps["cividis"](value)), light(ink_on(value))
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) >= 4.5, value


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (320, "dark")])
def test_the_live_page_is_silent_and_readable(started, live, width, scheme):
    with opened(started, live.url, width=width, scheme=scheme) as page:
        page.wait_for_timeout(2500)  # one update
        assert page.asked.count(live.url) == 2
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(FAINT_TEXT)["found"] == []
        assert page.complaints == []
        assert set(page.asked) == {live.url}


def test_the_live_page_updates_and_keeps_the_readers_place(started, live):
    steps = live._watch.path / "steps.jsonl"
    with opened(started, live.url) as page:
        summary = page.locator("summary").nth(1)
        summary.click()
        summary.focus()
        with steps.open("a") as file:
            file.write(json.dumps(step(24, NAMES)) + "\n")
        until(lambda: "25 batches" in page.inner_text("#live p"))
        assert page.evaluate("document.activeElement === document.querySelectorAll('#report summary')[1]")
        assert page.evaluate("document.querySelectorAll('#report details')[1].open")
        assert page.complaints == []
        page.locator("#pause").click()
        assert page.inner_text("#pause") == "Resume updates"
        with steps.open("a") as file:
            file.write(json.dumps(step(25, NAMES)) + "\n")
        page.wait_for_timeout(4500)
        assert "25 batches" in page.inner_text("#live p")
        page.locator("#pause").click()
        until(lambda: "26 batches" in page.inner_text("#live p"))


def test_another_site_cannot_read_the_live_page(started, live, tmp_path):
    other = tmp_path / "evil.html"
    other.write_text("<title>evil</title>")
    with opened(started, other) as page:
        read = page.evaluate(f"fetch('{live.url}').then((r) => r.text(), (e) => 'refused')")
        assert read == "refused"
        framed = page.evaluate(
            f"""new Promise((done) => {{
              const frame = document.createElement("iframe");
              const read = () => frame.contentDocument.body.textContent;
              frame.onload = () => {{ try {{ done(read()); }} catch {{ done("hidden"); }} }};
              frame.src = "{live.url}"; document.body.append(frame);
            }})"""
        )
        assert "batches" not in (framed or "")

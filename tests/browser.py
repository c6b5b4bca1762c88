"""A real Chromium for tests: the one that LASER_CHROMIUM names, that is installed, or that playwright has fetched."""

import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# Contrast of every visible text with the background behind it (WCAG 2.2, 1.4.3), where it is below 4.5.
FAINT_TEXT = """() => {
  const parse = (text) => { const v = text.match(/[\\d.]+/g).map(Number); return v.length > 3 ? v : [...v, 1]; };
  const linear = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat([1]);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script, style, noscript")) continue;
    if (element.closest("[id*='-cell-']")) continue;  // on a colored cell, not on the page
    const style = getComputedStyle(element), below = behind(element);
    const ink = over(parse(element.closest("svg") ? style.fill : style.color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    seen += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push([node.data.trim().slice(0, 40), style.color, below.join()]);
  }
  return { seen, found };
}"""

FOCUSABLE = "a[href], button, summary, [tabindex='0']"


def chromium():
    """Path of a browser; skips the test where there is none."""
    named = os.environ.get("LASER_CHROMIUM")
    found = named or next((path for path in map(shutil.which, NAMES) if path), None)
    if not found:
        pytest.skip("no Chromium here: install one (apt-get install chromium), or name it in LASER_CHROMIUM")
    return found


@contextmanager
def browser():
    """A headless browser without network beyond this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install -e '.[browser]'")
    path = chromium()
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(started, url, *, width=1280, scheme="light"):
    """A page, with what it printed and asked for kept in `page.complaints` and `page.asked`."""
    page = started.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(str(url) if "://" in str(url) else Path(url).resolve().as_uri())
    yield page
    page.close()


def until(condition, seconds=40):
    """Wait for something; a page's policy forbids the browser to evaluate a condition itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def tab_through(page, limit=200):
    """Places of the elements that Tab reaches among all focusable ones, in the order it reaches them."""
    page.evaluate("document.activeElement && document.activeElement.blur()")
    reached = []
    for _ in range(limit):
        page.keyboard.press("Tab")
        place = page.evaluate(
            f"""() => {{
              const shown = [...document.querySelectorAll("{FOCUSABLE}")].filter((e) => e.checkVisibility());
              const e = document.activeElement, style = getComputedStyle(e);
              const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
              return [shown.indexOf(e), shown.length, ring];
            }}"""
        )
        if place[0] < 0 or (reached and place[0] <= reached[-1][0]):
            break
        reached.append(place)
    return reached

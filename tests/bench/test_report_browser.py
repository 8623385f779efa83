"""The HTML report in a real browser: it sorts, needs no network, breaks nothing, and fits narrow screens."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_records import class_run, example_run, full_run, make_accuracy, make_latency, make_run
from browser import require_browser, visit
from PIL import Image

from seg_bench.report.html_page import to_html

PROBE = """
<script id="probe">
  // Whatever the page loads has come or failed by then.
  addEventListener("load", () => {
    const wanted = {WANTED};
    const table = document.getElementById("results-1");
    const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === wanted);
    const shown = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
    const result = { before: shown(), sorts: [] };
    const heading = table.tHead.rows[0].cells[column];
    for (let press = 0; press < 2; press += 1) {
      heading.firstElementChild.click();
      result.sorts.push({ order: heading.getAttribute("aria-sort"), shown: shown() });
    }
    const addresses = performance.getEntriesByType("resource").map((entry) => entry.name);
    result.loaded = addresses.filter((address) => !address.startsWith("data:"));
    result.pageWidth = document.documentElement.scrollWidth;
    result.windowWidth = window.innerWidth;
    const plots = [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().width);
    result.plots = plots.filter((width) => width > 0);
    const box = document.querySelector(".all input");
    const columns = () => [...table.tHead.rows[0].cells].filter((cell) => cell.offsetWidth > 0).length;
    result.columns = [columns(), (box.click(), columns())];
    document.title = JSON.stringify(result);
  });
</script>
"""


@pytest.fixture(scope="module", autouse=True)
def browser() -> str:
    return require_browser()


@pytest.fixture(scope="module")
def page_text() -> str:
    """A page with everything: load, energy, conditions, a noisy row, one that failed, many calls."""
    run = full_run()
    slow = replace(run.records[0], latency=make_latency(90, 400), accuracy=make_accuracy(0.981))
    fast = replace(run.records[0], latency=make_latency(9, 400), accuracy=make_accuracy(0.93))
    return to_html([make_run(*example_run().records, *run.records, slow, fast)])


def probed(text: str, heading: str, tmp_path: Path, **window: Any) -> tuple[dict[str, Any], list[str]]:
    page = tmp_path / "report.html"
    probe = PROBE.replace("{WANTED}", json.dumps(heading))
    page.write_text(text.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    seen = visit(page, **window)
    title = re.search(r"<title>(.*?)</title>", seen.document, re.DOTALL)
    assert title
    return json.loads(title[1].replace("&lt;", "<").replace("&amp;", "&")), seen.console


def test_a_column_sorts_up_and_down_by_its_numbers_and_what_is_absent_stays_last(
    page_text: str, tmp_path: Path
) -> None:
    result, console = probed(page_text, "p50 (ms)", tmp_path)
    numbers = sorted(float(text) for text in result["before"] if text != "-")
    absent = result["before"].count("-")
    assert absent == 1 and numbers != [float(text) for text in result["before"] if text != "-"]
    up, down = result["sorts"]
    assert (up["order"], down["order"]) == ("ascending", "descending")
    assert up["shown"] == [f"{value:.1f}" for value in numbers] + ["-"] * absent
    assert down["shown"] == [f"{value:.1f}" for value in numbers[::-1]] + ["-"] * absent
    assert result["loaded"] == [], "the page must need nothing from anywhere"
    assert console == []


def test_a_column_of_text_sorts_on_a_narrow_screen_whose_page_is_not_wider_than_it(
    page_text: str, tmp_path: Path
) -> None:
    page = f"<style>body {{ width: 376px }}</style>{page_text}"  # Chromium's windows are 500 pixels at least.
    result, console = probed(page, "model", tmp_path, width=500, height=900)
    assert result["sorts"][0]["shown"] == sorted(result["before"])
    assert result["pageWidth"] <= result["windowWidth"], "only tables may scroll sideways"
    assert 340 <= min(result["plots"]) <= max(result["plots"]) <= 376, "the small plots are shown as they are"
    assert console == []


def test_plot_and_table_of_classes_fit_a_narrow_screen(tmp_path: Path) -> None:
    page = f"<style>body {{ width: 376px }}</style>{to_html([class_run()])}"
    result, console = probed(page, "model", tmp_path, width=500, height=900)
    assert result["pageWidth"] <= result["windowWidth"]
    assert len(result["plots"]) == 3 and max(result["plots"]) <= 376
    assert console == []


def test_few_columns_are_shown_until_all_are_asked_for(page_text: str, tmp_path: Path) -> None:
    result, _ = probed(page_text, "model", tmp_path)
    few, every = result["columns"]
    assert 5 <= few <= 11 < 2 * few < every


def test_the_browser_tells_when_a_page_breaks_or_loads_something(page_text: str, tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    bad = page_text.replace(
        "</head>", '<img src="http://example.org/a.png"><script>nothing();</script></head>'
    )
    result, console = probed(bad, "model", tmp_path)
    assert result["loaded"] == ["http://example.org/a.png"]
    assert any("nothing is not defined" in line for line in console)


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_readers_get_their_page(dark: bool, page_text: str, tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(page_text, encoding="utf-8")
    visit(page, screenshot=picture, dark=dark)
    pixels = np.asarray(Image.open(picture).convert("L"))
    paper = np.bincount(pixels.ravel()).argmax()
    assert paper < 60 if dark else paper > 240
    # Text and plots are there and stand out: neither an empty page nor ink in the colour of the paper.
    distinct = np.abs(pixels.astype(int) - int(paper)) > 100
    assert 0.005 < distinct.mean() < 0.3

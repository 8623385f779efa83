"""The report as one HTML page that needs no network: sortable tables, plots, and how it was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from seg_bench.records import Run
from seg_bench.report.class_plot import class_dots
from seg_bench.report.class_table import class_rows, class_table
from seg_bench.report.confusion import confusion_tables
from seg_bench.report.frame import NARROW, WIDE, Size
from seg_bench.report.grouping import by_data, by_device, device_table
from seg_bench.report.html_table import html_table
from seg_bench.report.load_plot import load_curves
from seg_bench.report.notes import legend_lines, run_facts
from seg_bench.report.plots import dice_against_latency
from seg_bench.report.plotted import PlottedRow, plotted_rows
from seg_bench.report.row_plots import energy_bars, latency_samples
from seg_bench.report.table import build_table, condition_table, load_table
from seg_bench.report.verdict import verdict

if TYPE_CHECKING:
    from seg_bench.report.worst import WorstCase

__all__ = ["to_html"]


def to_html(
    runs: Sequence[Run],
    title: str = "Segmentation models: accuracy and latency",
    worst: Sequence[WorstCase] = (),
) -> str:
    """The whole page, light or dark as the reader's browser prefers.

    Args:
        runs: what to show.
        title: the page's.
        worst: images with the masks that scored lowest, see `seg_bench.report.worst`.
    """
    page = Template((files("seg_bench.report") / "page.html").read_text(encoding="utf-8"))
    several = device_table(runs)
    groups = [
        _Group(", ".join(filter(None, (device if several else "", data))), measured)
        for device, its in by_device(runs).items()
        for data, measured in by_data(its).items()
    ]
    return page.substitute(
        title=escape(title),
        verdicts="\n".join(map(_verdict, groups)),
        devices=html_table(several, "devices") if several else "",
        results="\n".join(_results(group, number) for number, group in enumerate(groups, 1)),
        legend="<br>".join(escape(line) for line in legend_lines(runs)),
        worst=_worst_cases(worst),
        runs="\n".join(_facts(run) for run in runs),
    )


@dataclass(frozen=True)
class _Group:
    """What was measured on one device with one data set."""

    name: str
    runs: Sequence[Run]


def _verdict(group: _Group) -> str:
    words = verdict(group.runs)
    return f'<p class="verdict"><b>{escape(group.name)}.</b> {escape(words)}</p>' if words else ""


def _results(group: _Group, number: int) -> str:
    runs = group.runs
    rows = plotted_rows([record for run in runs for record in run.records])
    conditions, load, classes = condition_table(runs), load_table(runs), class_table(runs)
    parts = [
        f"<h2>{escape(group.name)}</h2>",
        html_table(build_table(runs).decisive_first(), f"results-{number}", all_columns=False),
        _figure("Dice against latency", dice_against_latency, rows, _DICE_CAPTION),
        _figure("Dice of each class", class_dots, class_rows(runs), _CLASS_CAPTION),
        html_table(classes, f"classes-{number}") if classes else "",
        _confusion(runs),
        _figure("Every timed call", latency_samples, rows, _CALLS_CAPTION),
        _figure("Energy per image", energy_bars, rows, _ENERGY_CAPTION),
    ]
    if conditions:
        parts += ["<h3>Dice under other conditions</h3>", html_table(conditions, f"conditions-{number}")]
    parts.append(_figure("Under load", load_curves, rows, _LOAD_CAPTION))
    parts.append(html_table(load, f"load-{number}") if load else "")
    return "\n".join(filter(None, parts))


def _confusion(runs: Sequence[Run]) -> str:
    tables = confusion_tables(class_rows(runs))
    caption = f'<p class="quiet">{_CONFUSION_CAPTION}</p>'
    return f"<h3>Which class is taken for which</h3>\n{caption}\n{tables}" if tables else ""


def _figure(
    title: str, draw: Callable[[Sequence[PlottedRow], Size], str], rows: Sequence[PlottedRow], caption: str
) -> str:
    """A plot in two sizes, of which the page shows the one that fits; empty where there is nothing in it."""
    wide = draw(rows, WIDE)
    if not wide:
        return ""
    return (
        f'<figure>\n<h3>{escape(title)}</h3>\n<div class="wide">{wide}</div>\n'
        f'<div class="narrow">{draw(rows, NARROW)}</div>\n<figcaption>{caption}</figcaption>\n</figure>'
    )


def _worst_cases(worst: Sequence[WorstCase]) -> str:
    if not worst:
        return ""
    figures = "\n".join(_picture(case) for case in worst)
    heading = f'<h2>Worst cases</h2>\n<p class="quiet">{_WORST_CAPTION}</p>'
    return f'{heading}\n<div class="worst">\n{figures}\n</div>'


def _picture(case: WorstCase) -> str:
    image, model = escape(case.image, quote=True), escape(case.model)
    size = f'width="{case.width}" height="{case.height}"'
    return (
        f'<figure><img src="{case.uri}" alt="{image}" {size}>'
        f"<figcaption>{model}: {image}<br>{escape(case.words)}</figcaption></figure>"
    )


def _facts(run: Run) -> str:
    return f"<dl>{''.join(_fact(name, value) for name, value in run_facts(run))}</dl>"


def _fact(name: str, value: str) -> str:
    css = ' class="command"' if name == "command" else ""
    return f"<dt>{escape(name)}</dt><dd{css}>{escape(value)}</dd>"


_DICE_CAPTION = (
    "Up and to the left is better. The dashed line is the Pareto front; rows that another one beats in both, "
    "and the baselines, are grey. Bars: 95 % bootstrap interval of the mean, of rows on the front."
)
_CLASS_CAPTION = (
    "To the right is better; equal distances are equal ratios of 1 - Dice. One mark per model, more where "
    "its rows differ. Images are those whose ground truth has the class."
)
_CONFUSION_CAPTION = (
    "Of the pixels of a true class, in all images together, the shares that the model gives each class."
)
_ENERGY_CAPTION = "Of the whole device while the row was timed."
_CALLS_CAPTION = (
    "One dot per call, or the outline of their distribution where there are many (its height is the root of "
    "the count). The long line is the median (p50), the short one p99 where there are calls enough."
)
_LOAD_CAPTION = "To the right and down is better. One mark per level of load; solid: p50, dashed: p99."
_WORST_CAPTION = (
    "The images with the lowest Dice in the records. Green: both agree; red: the model alone; blue: the "
    "ground truth alone. Masks were computed again for this page, in process."
)

"""The plan and the results in a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from seg_bench.records import Run
from seg_bench.reproduce.device import Device
from seg_bench.reproduce.plan import PlannedRow
from seg_bench.reproduce.table import table_lines

__all__ = ["plan_text", "results_text"]

_WIDTH = 80


def plan_text(plan: Sequence[PlannedRow], device: Device, budget_s: float, cut: str = "") -> str:
    """A line per row: what is done for it and about how long that takes; `cut` is what has no room."""
    triton = "; Triton" if any(each.served for each in plan) else ""
    lines = [f"engines: {', '.join(device.engines) or 'none'}; {_pytorch(device)}{triton}"]
    lines += [line for note in (*device.notes, cut) for line in textwrap.wrap(note, _WIDTH)]
    lines += ["", f"{'network':26}{'what':44}{'about':>10}"]
    lines += [_planned(each) for each in plan]
    total_s = sum(each.estimate_s for each in plan if each.state == "to do")
    cut = "" if total_s <= budget_s else ": rows are timed shorter, and what does not fit is left out"
    lines += [
        "",
        *textwrap.wrap(f"in all about {_time(total_s)}, the budget is {_time(budget_s)}{cut}", _WIDTH),
    ]
    return "\n".join(lines)


def results_text(runs: Iterable[Run]) -> str:
    """The columns that decide, a heading line per network."""
    lines = [f"{'':36}{'mask IoU':>9}{'Dice':>8}{'p50':>9}{'p90':>9}{'times':>8}"]
    network = ""
    for line in table_lines(runs):
        if line.network != network:
            network = line.network
            lines.append(network)
        cells = line.iou, line.dice, line.percentile(50), line.percentile(90), line.times
        widths = 9, 8, 9, 9, 8
        figures = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"  {line.engine:34}{figures}")
        lines += textwrap.wrap(line.note, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    lines += ["", "p50 and p90 in ms; times: as fast as the fastest PyTorch that passes"]
    return "\n".join(lines)


def _planned(each: PlannedRow) -> str:
    if each.state == "measured":
        what, about = "measured before", ""
    elif each.state == "cannot run here":
        return "\n".join(textwrap.wrap(f"{each.row.title:26}{each.note}", _WIDTH, subsequent_indent=" " * 26))
    else:
        missing = "" if each.missing == each.precisions else f" {' '.join(each.missing)}"
        steps = ["train"] if each.train_s else []
        steps += [f"export{missing}"] if each.missing else []
        steps += ["build"] if each.builds else []
        what = ", ".join([*steps, f"measure {' '.join(each.precisions)}"])
        about = _time(each.estimate_s)
    return f"{each.row.title:26}{what:44}{about:>10}"


def _pytorch(device: Device) -> str:
    if not device.pytorch:
        return "no PyTorch"
    return "PyTorch eager and compiled in bf16" if device.compiles else "PyTorch eager"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

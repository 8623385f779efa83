"""The table of a device: one line per engine of each network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seg_bench.article import article_figures
from seg_bench.candidate import COMPILED
from seg_bench.records import Record, Run
from seg_bench.report.cells import ABSENT, percentile_cell
from seg_bench.report.names import ran_in
from seg_bench.report.speed import times_as_fast
from seg_bench.reproduce.catalogue import ROWS, TableRow
from seg_bench.tracked import split_name

__all__ = ["Line", "table_lines", "to_markdown_table"]

_TEXTS = ("network", "engine")
_FIGURES = ("mask IoU", "Dice", "p50 (ms)", "p90 (ms)", "p99 (ms)", "images/s (batch)", "times as fast")
_COSTS = ("of matrix rate", "memory (MiB)", "device memory (MiB)", "J/image")
_LEGEND = (
    "mask IoU: the lowest of the images, with the masks of the fp32 graph in ONNX Runtime on this machine; "
    "below 0.995 (int8: 0.97) a line is not timed. times as fast: p50 of the fastest PyTorch that passes, "
    "divided by this one's. Times are of whole calls, from the image to its mask, one image per call, the "
    "engines of a network in turns; images/s with calls back to back, at the batch that gives most. of "
    "matrix rate: operations of the network per second of inference (of a SAM, of its encoder), as a part of "
    "what NumPy reaches here in products of fp32 matrices."
)


@dataclass(frozen=True)
class Line:
    """One engine of one network, as text.

    Attributes:
        row: of the catalogue.
        record: what was measured.
        speed: times as fast as the fastest PyTorch of the same run; None where there is none.
        matrix_gflops: of `Machine`.
    """

    row: TableRow
    record: Record
    speed: float | None
    matrix_gflops: float | None = None

    @property
    def network(self) -> str:
        model = self.record.model
        title = self.row.title_of(model.name)
        return f"{title} (random weights)" if model.weights == "random" else title

    @property
    def engine(self) -> str:
        record = self.record
        if record.runtime == COMPILED:
            return record.runtime
        return f"{ran_in(record)}, {record.model.precision}"

    @property
    def iou(self) -> str:
        """The lowest mask IoU with the fp32 graph."""
        agreement = self.record.agreement
        return f"{agreement.lowest:.4f}" if agreement else ABSENT

    @property
    def dice(self) -> str:
        accuracy = self.record.accuracy
        mean = accuracy.dice_summary.mean if accuracy else None
        return ABSENT if mean is None else f"{mean:.4f}"

    @property
    def times(self) -> str:
        return ABSENT if self.speed is None else f"{self.speed:.2f}"

    @property
    def throughput(self) -> str:
        """Images per second, and the batch."""
        found, single = self.record.throughput, self.record.images_per_s
        if found:
            return f"{found.images_per_s:.1f} ({found.batch})"
        return ABSENT if single is None else f"{single:.1f} (1)"

    @property
    def matrix_share(self) -> str:
        """Operations per second of inference, as a part of the processor's rate in matrix products."""
        latency = self.record.latency
        if self.matrix_gflops is None or latency is None or self.record.where != "in-process":
            return ABSENT
        if self.row.memories:  # Its operations are a mean of several models.
            return ABSENT
        seconds = latency.percentile(50, "encode" if latency.encode else "infer") / 1000
        return f"{self.row.gflop / seconds / self.matrix_gflops:.0%}"

    @property
    def note(self) -> str:
        """Why there are no figures, or what to know of them; empty for nothing."""
        early = f"stopped early: {self.record.early}" if self.record.early else None
        caveat = f"Dice: {self.row.caveat}" if self.row.caveat and self.record.accuracy else None
        others = [
            f"Dice on {condition.name}: {condition.summary.mean:.4f} ({len(condition.images)} images)"
            for condition in self.record.conditions or ()
            if condition.summary.mean is not None
        ]
        return "; ".join(filter(None, (self.record.failure, caveat, *others, early, self.record.noise)))

    def percentile(self, percent: float) -> str:
        """Of the whole call in milliseconds."""
        latency = self.record.latency
        return percentile_cell(latency.total, percent).text if latency else ABSENT


def table_lines(runs: Iterable[Run]) -> list[Line]:
    """The lines of all networks, in the order of the catalogue.

    Args:
        runs: one for each network.
    """
    by_key = {_key(run): run for run in runs}
    return [
        Line(ROWS[key], record, times_as_fast(by_key[key], record), by_key[key].machine.matrix_gflops)
        for key in ROWS
        if key in by_key
        for record in _by_memories(by_key[key].records)
    ]


def to_markdown_table(runs: Sequence[Run], missing: Sequence[str] = ()) -> str:
    """All lines, the article's figures, and how it was measured; ends with a newline.

    Args:
        runs: one for each network, of one machine.
        missing: lines about networks that were not measured.
    """
    lines = table_lines(runs)
    figures = len(_FIGURES) + len(_COSTS)
    page = [
        _row([*_TEXTS, *_FIGURES, *_COSTS, "note"]),
        _row(["---"] * len(_TEXTS) + ["---:"] * figures + ["---"]),
        *(_row(_cells(line)) for line in lines),
        "",
        *_article(lines),
        *(f"- not measured: {line}" for line in missing),
        "",
        _machine(runs[0]),
        "",
        _LEGEND,
    ]
    return "\n".join(page) + "\n"


def _cells(line: Line) -> list[str]:
    record = line.record
    return [
        line.network,
        line.engine,
        line.iou,
        line.dice,
        *(line.percentile(percent) for percent in (50, 90, 99)),
        line.throughput,
        line.times,
        line.matrix_share,
        _number(record.peak_memory_mib, ".0f"),
        _number(record.device_memory_mib, ".0f"),
        _number(record.energy.joules_per_image if record.energy else None, ".3g"),
        line.note or ABSENT,
    ]


def _number(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _article(lines: Iterable[Line]) -> list[str]:
    """The article's figures of the networks that it has, a line each."""
    families = dict.fromkeys(line.row.family for line in lines if line.row.group == "article")
    return [
        f"- the article, {figures.model}: Dice {figures.dice:.3f}, {figures.inference_ms:.0f} ms, on a "
        "machine that it does not name"
        for figures in filter(None, map(article_figures, families))
    ]


def _machine(run: Run) -> str:
    machine = run.machine
    packages = ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items()))
    rate = f"; matrix products: {machine.matrix_gflops:.0f} GFLOP/s in fp32" if machine.matrix_gflops else ""
    return (
        f"Machine: {machine.cpu}, {machine.cores} cores; {machine.gpu or 'no GPU'}{rate}; "
        f"Python {machine.python}; {packages}."
    )


def _by_memories(records: Iterable[Record]) -> list[Record]:
    """The rows of an image, then those of each tracked frame."""
    return sorted(records, key=lambda record: split_name(record.model.name)[1])


def _key(run: Run) -> str:
    """Models are called by the key of their row and, unless it is fp32, their precision; memories follow."""
    return max((key for key in ROWS if run.records[0].model.name.startswith(key)), key=len)

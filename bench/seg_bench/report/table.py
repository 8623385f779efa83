"""The table that every report shows: one row per record, the article's figures beside."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from seg_bench.article import ArticleFigures, article_figures
from seg_bench.candidate import BASELINES, OFFICIAL_DECODER, OFFICIAL_EXPORT, PYTORCH
from seg_bench.metrics.summary import MetricSummary
from seg_bench.records import Latency, ObjectAccuracy, Record, Run
from seg_runtime.engines import AUTO

__all__ = [
    "ABSENT",
    "PLACES",
    "Cell",
    "Column",
    "Table",
    "build_table",
    "engine_of",
    "engines_differ",
    "place_of",
    "row_name",
    "speed_lines",
]

ABSENT = "-"
PLACES = {"in-process": "in process", "grpc": "gRPC", "http": "HTTP", "shared-memory": "shared memory"}
_SAM_COLUMNS = ("encode_ms", "decode_ms")
_OBJECT_COLUMNS = ("ap", "ap50", "count_error", "matched_dice")
_CALLED = {OFFICIAL_DECODER: "official decoder", OFFICIAL_EXPORT: "torchvision's export"}


@dataclass(frozen=True)
class Column:
    """A heading; `unit` is empty for text and pure numbers, `numeric` columns align right."""

    key: str
    title: str
    unit: str = ""
    numeric: bool = True

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number behind it (None for text and for what was not measured)."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """Columns, and one tuple of cells per record in the order of `records`."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    records: tuple[Record, ...]


def build_table(runs: Sequence[Run]) -> Table:
    """Make the table of one or several runs.

    Several machines, and several engines in process, get a column that tells them apart, SAMs those of their
    two models, and models that find objects those of how well they do.
    """
    machines = list(dict.fromkeys(run.machine.cpu for run in runs))
    pairs = [(run, record) for run in runs for record in run.records]
    left_out = set() if len(machines) > 1 else {"machine"}
    if not engines_differ(record for _, record in pairs):
        left_out |= {"engine"}
    if not any(record.latency and record.latency.encode for _, record in pairs):
        left_out |= {*_SAM_COLUMNS}
    if not any(record.accuracy and record.accuracy.objects for _, record in pairs):
        left_out |= {*_OBJECT_COLUMNS}
    columns = [column for column in _COLUMNS if column[0].key not in left_out]
    rows = tuple(tuple(cell(run, record) for _, cell in columns) for run, record in pairs)
    return Table(tuple(column for column, _ in columns), rows, tuple(record for _, record in pairs))


def speed_lines(records: Iterable[Record]) -> list[str]:
    """One line per deployed row and baseline that was timed in the same run: how much faster it is."""
    records = list(records)
    differ = engines_differ(records)
    lines = []
    for record in records:
        for base in records:
            if record.latency and base.latency and _is_baseline(base, record):
                ratio = base.latency.percentile(50) / record.latency.percentile(50)
                line = f"{row_name(record, differ)}: {ratio:.2f} times as fast as {_called(base)}"
                lines.append(line + _sam_ratios(base.latency, record.latency))
    return lines


def place_of(record: Record) -> str:
    """Where a record was measured, in words; the baselines always run in process."""
    return _called(record) if record.runtime in BASELINES else PLACES.get(record.where, record.where)


def engine_of(record: Record) -> str:
    """What computed, in words, with version and device where the record has them; says when "auto" chose."""
    chosen = " (auto)" if record.settings.engine == AUTO else ""
    return (record.engine or record.runtime) + chosen


def engines_differ(records: Iterable[Record]) -> bool:
    """Whether deployed models ran in more than one engine in process, so that rows must name theirs."""
    return len({engine_of(record) for record in records if _runs_in_process(record)}) > 1


def row_name(record: Record, engines_differ: bool) -> str:
    """Model and place, and where engines differ the one that was asked for, for lines of text."""
    engine = record.settings.engine if engines_differ else None
    return ", ".join(filter(None, (record.model.name, place_of(record), engine)))


def _runs_in_process(record: Record) -> bool:
    return record.where == "in-process" and record.runtime not in BASELINES


def _called(baseline: Record) -> str:
    return _CALLED.get(baseline.runtime, PYTORCH)


def _is_baseline(entry: Record, record: Record) -> bool:
    same_weights = entry.model.checkpoint_sha256 == record.model.checkpoint_sha256
    return entry.runtime in BASELINES and record.runtime not in BASELINES and same_weights


def _sam_ratios(base: Latency, latency: Latency) -> str:
    if not (base.encode and base.decode and latency.encode and latency.decode):
        return ""
    encode = base.percentile(50, "encode") / latency.percentile(50, "encode")
    masks = _masks_ms(base) / _masks_ms(latency)
    return f" (encode {encode:.2f}, decode and upscale {masks:.2f})"


def _masks_ms(latency: Latency) -> float:
    """Median of decoding and upscaling together, which some decoders do in one graph."""
    samples = zip(latency.decode or (), latency.postprocess, strict=True)
    return statistics.median(decode + upscale for decode, upscale in samples)


def _text(pick: Callable[[Run, Record], str]) -> Callable[[Run, Record], Cell]:
    return lambda run, record: Cell(pick(run, record) or ABSENT)


def _number(value: float | None, form: str) -> Cell:
    return Cell(ABSENT) if value is None else Cell(format(value, form), value)


def _summary(pick: str, form: str) -> Callable[[Run, Record], Cell]:
    def cell(run: Run, record: Record) -> Cell:
        if record.model.weights == "random":
            return Cell("random weights" if pick == "dice_summary" else ABSENT)
        if record.accuracy is None:
            return Cell(ABSENT)
        summary: MetricSummary = getattr(record.accuracy, pick)
        if summary.mean is None:
            return Cell(f"infinite for all {summary.count}", math.inf)
        infinite = (
            f" ({summary.infinite_count} of {summary.count} infinite)" if summary.infinite_count else ""
        )
        return Cell(f"{summary.mean:{form}} ± {summary.std:{form}}{infinite}", summary.mean)

    return cell


def _objects(pick: Callable[[ObjectAccuracy], float | None], form: str) -> Callable[[Run, Record], Cell]:
    def cell(run: Run, record: Record) -> Cell:
        objects = record.accuracy.objects if record.accuracy else None
        return _number(pick(objects) if objects else None, form)

    return cell


def _mean_count_error(objects: ObjectAccuracy) -> float:
    return statistics.fmean(abs(error) for error in objects.count_error)


def _mean_matched_dice(objects: ObjectAccuracy) -> float | None:
    found = [dice for dice in objects.matched_dice if not math.isnan(dice)]
    return statistics.fmean(found) if found else None


def _percentile(percent: float, stage: str = "total") -> Callable[[Run, Record], Cell]:
    def cell(run: Run, record: Record) -> Cell:
        timed = record.latency if record.latency and getattr(record.latency, stage) else None
        return _number(timed.percentile(percent, stage) if timed else None, ".1f")

    return cell


def _article(
    pick: Callable[[ArticleFigures], float], form: str, suffix: str = ""
) -> Callable[[Run, Record], Cell]:
    def cell(run: Run, record: Record) -> Cell:
        figures = article_figures(record.model.family)
        shown = _number(pick(figures) if figures else None, form)
        return Cell(shown.text + suffix, shown.value) if figures else shown

    return cell


def _parameters(run: Run, record: Record) -> Cell:
    count = record.model.parameters
    if count is None:
        return Cell(ABSENT)
    return Cell(f"{count / 1e6:.2f}M" if count < 9_950_000 else f"{count / 1e6:.1f}M", count)


_COLUMNS: tuple[tuple[Column, Callable[[Run, Record], Cell]], ...] = (
    (Column("machine", "machine", numeric=False), _text(lambda run, record: run.machine.cpu)),
    (Column("model", "model", numeric=False), _text(lambda run, record: record.model.name)),
    (Column("precision", "precision", numeric=False), _text(lambda run, record: record.model.precision)),
    (Column("where", "where", numeric=False), _text(lambda run, record: place_of(record))),
    (Column("engine", "engine", numeric=False), _text(lambda run, record: engine_of(record))),
    (Column("dice", "Dice"), _summary("dice_summary", ".4f")),
    (Column("iou", "IoU"), _summary("iou_summary", ".4f")),
    (Column("hd95_px", "HD95", "px"), _summary("hd95_summary", ".2f")),
    (Column("ap", "mask AP"), _objects(lambda objects: objects.ap, ".4f")),
    (Column("ap50", "AP50"), _objects(lambda objects: objects.ap50, ".4f")),
    (Column("count_error", "count error"), _objects(_mean_count_error, ".1f")),
    (Column("matched_dice", "Dice of objects"), _objects(_mean_matched_dice, ".4f")),
    (Column("parameters", "parameters"), _parameters),
    (Column("encode_ms", "encode p50", "ms"), _percentile(50, "encode")),
    (Column("decode_ms", "decode p50", "ms"), _percentile(50, "decode")),
    (Column("p50_ms", "p50", "ms"), _percentile(50)),
    (Column("p90_ms", "p90", "ms"), _percentile(90)),
    (Column("p99_ms", "p99", "ms"), _percentile(99)),
    (Column("images_per_s", "images/s"), lambda run, record: _number(record.images_per_s, ".1f")),
    (
        Column("peak_memory_mib", "peak memory", "MiB"),
        lambda run, record: _number(record.peak_memory_mib, ".0f"),
    ),
    (Column("article_dice", "article: Dice"), _article(lambda figures: figures.dice, ".3f")),
    (Column("article_iou", "article: IoU"), _article(lambda figures: figures.iou, ".3f")),
    (Column("article_parameters", "article: params"), _article(lambda f: f.parameters_m, ".0f", "M")),
    (Column("article_ms", "article: latency", "ms"), _article(lambda figures: figures.inference_ms, ".0f")),
)

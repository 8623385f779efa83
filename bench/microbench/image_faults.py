"""Malformed images through `seg-run segment`, each alone and all of a dozen in one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from microbench.damage import damaged
from microbench.forked import LIMIT_S, Ended
from microbench.image_files import honest, lies, suffix
from microbench.workplace import SUBJECT, FileOutcome, Workplace, outcome_of

__all__ = ["try_images"]

_TOGETHER = 12
_BANDS = "TIFF of four bands"


def try_images(kind: str, place: Workplace, tries: int) -> Iterator[FileOutcome]:
    """Segment malformed files of a format.

    Args:
        kind: a key of `FORMATS`.
        place: where.
        tries: how many files; after each dozen and the last, all of these once more as one folder, with an
            honest file in front and at the end.
    """
    for begin in range(0, tries, _TOGETHER):
        images, taken = place.new_folder("images"), {}
        for seed in range(begin, min(begin + _TOGETHER, tries)):
            path = images / f"file_{seed:03}{suffix(kind)}"
            path.write_bytes(damaged(honest(kind), lies(kind), seed, kind))
            outcome, taken[path.name] = _alone(place, kind, path)
            yield outcome
        yield _together(place, kind, images, taken)


def _alone(place: Workplace, kind: str, path: Path) -> tuple[FileOutcome, bool]:
    """The outcome of one file, and whether it was segmented."""
    out = place.new_folder("out")
    ended = _segment(place, kind, path, out)
    left = tuple(sorted(entry.name for entry in out.iterdir()))
    if ended.code == 0:
        rows = _rows(out)
        failure = _complaint(rows[0]) if len(rows) == 1 else f"{len(rows)} rows of results for one file"
        left = tuple(name for name in left if name.endswith(".partial"))
    else:
        failure = "wrote a result of a file that it refused" if left else ""
    failure = ended.complaint or failure
    return outcome_of(ended, f"{path.name}: {failure}" if failure else "", left), ended.code == 0


def _together(place: Workplace, kind: str, images: Path, taken: dict[str, bool]) -> FileOutcome:
    """A folder of files: each must end as it did alone."""
    for name in ("a_first", "z_last"):
        path = images / f"{name}{suffix(kind)}"
        path.write_bytes(honest("PNG" if kind in ("BMP", "WebP") else kind))
        taken[path.name] = True
    out = place.new_folder("out")
    ended = _segment(place, kind, images, out, limit_s=LIMIT_S * len(taken))
    rows = {Path(row["path"]).name: row for row in _rows(out)}
    left = tuple(entry.name for entry in out.iterdir() if entry.name.endswith(".partial"))
    wrong = [name for name in taken if ("error" not in rows.get(name, {"error": ""})) != taken[name]]
    failure = f"{wrong[0]} ended otherwise than alone" if wrong else ""
    failure = failure or next(filter(None, map(_complaint, rows.values())), "")
    failure = _folder_complaint(ended, all(taken.values())) or failure
    return outcome_of(ended, f"folder: {failure}" if failure else "", left)


def _folder_complaint(ended: Ended, all_taken: bool) -> str:
    """As `Ended.complaint`, but for a line for each file that was left out."""
    last = (ended.said.strip().splitlines() or [""])[-1]
    if ended.over or ended.code < 0 or "Traceback" in ended.said:
        return ended.complaint
    if ended.code != (0 if all_taken else 2) or (ended.code and not last.startswith("error: ")):
        return f"exit code {ended.code}: {last}"
    return ""


def _segment(place: Workplace, kind: str, source: Path, out: Path, limit_s: float = LIMIT_S) -> Ended:
    repo, gray = (place.bands_repo, ()) if kind == _BANDS else (place.repo, ("--gray",))
    options = ("--repo", repo, "--model", SUBJECT, "--out", out, *gray)
    return place.forked.command("seg-run", "segment", source, *options, limit_s=limit_s)


def _rows(out: Path) -> list[dict[str, Any]]:
    results = out / "results.jsonl"
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def _complaint(row: dict[str, Any]) -> str:
    """What is wrong with the mask of a row; "" also for a row of an error."""
    if "error" in row:
        return ""
    mask = cv2.imread(str(row["mask"]), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.shape != (row["height"], row["width"]):
        return f"no mask of {row['width']}x{row['height']} pixels"
    if not np.isin(mask, (0, 255)).all():
        return "a mask with other values than 0 and 255"
    return "" if Path(str(row["overlay"])).is_file() else "no overlay"

"""`seg-bench calibrate`: the threshold of a published model, chosen on images with ground truth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_bench.cli.run_options import Part

if TYPE_CHECKING:
    from seg_bench.calibrate import Calibration, Score

__all__ = ["calibrate"]

_SHOWN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def calibrate(
    model: Annotated[
        str, typer.Argument(help="A published model of one class, or one for objects.", metavar="MODEL")
    ],
    data: Annotated[
        Path,
        typer.Argument(help="Folder of images with ground truth, as seg-bench run takes it.", metavar="DATA"),
    ],
    repo: Annotated[Path, typer.Option(help="Model repository.")] = Path("triton_repo"),
    part: Annotated[
        Part | None,
        typer.Option(help="Only this part of the split; choose by val.", show_default="all images"),
    ] = None,
    split_file: Annotated[
        Path | None, typer.Option(help="Split as JSON.", show_default="the shipped one, if any")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(help="Of several annotators: staple, majority, union or one of their names."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Write the threshold into the contract.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Choose the threshold of a model, and publish it.

    Every threshold of 0.05 to 0.95 is scored: by the mean Dice of the masks that
    it gives, or for objects, where it is one of scores, by F1. Of those as good
    as the best (within 0.0005 and 0.005), the one nearest to the model's own is
    taken. The graph and its version stay; a running server has to be started
    again. Use images that the model was not trained on, and others than those
    you report figures of.

    \b
    Examples:
      seg-bench calibrate unet_lung data/montgomery --part val
      seg-bench calibrate maskrcnn_nuclei data/nuclei --part val
      seg-bench calibrate roads data/roads --part val \\
        --split-file runs/roads/split.json
      seg-bench calibrate roads data/roads --no-publish --json
    """
    from seg_bench.calibrate import calibrate as choose
    from seg_bench.data.find import find_samples, names_of_part
    from seg_bench.data.splits import select
    from seg_export.publishing.manage import set_threshold
    from seg_runtime.console import progress_bar
    from seg_runtime.errors import BadInputError

    if split_file and part is None:
        raise BadInputError(f"--split-file {split_file} has parts: choose one with --part val")
    if publish and repo.is_dir() and not os.access(repo, os.W_OK):
        raise BadInputError(f"{repo} cannot be written to: look at the thresholds with --no-publish")
    samples = find_samples(data, truth)
    if part:
        samples = select(samples, names_of_part(samples, part.value, split_file)[0])
    with progress_bar() as bar:
        task = bar.add_task("scoring thresholds", total=len(samples))
        found = choose(repo, model, data, samples, on_image=lambda: bar.advance(task))
    changed = publish and found.chosen.threshold != found.current.threshold
    if changed:
        set_threshold(repo, model, found.chosen.threshold)
    if as_json:
        import json

        from seg_bench.json_fields import to_json

        typer.echo(json.dumps({**to_json(found), "published": changed}, indent=1, ensure_ascii=False))
        return
    for line in _lines(found, changed):
        typer.echo(line)


def _lines(found: Calibration, changed: bool) -> list[str]:
    objects = found.current.count_error is not None
    lines = [f"threshold  {found.metric}{'  found - true' if objects else ''}"]
    shown = {score.threshold: score for score in found.curve if score.threshold in _SHOWN}
    shown |= {score.threshold: score for score in (found.current, found.best, found.chosen)}
    lines += [_line(found, shown[threshold]) for threshold in sorted(shown)]
    said = f"on {len(found.images)} image{'' if len(found.images) == 1 else 's'}"
    current = found.current.threshold
    if found.chosen.threshold == current:
        return [*lines, f"'{found.model}' keeps {current:g}: no threshold is clearly better {said}"]
    what = f"{'has' if changed else 'would have'} the {found.what.replace('_', ' ')}"
    return [*lines, f"'{found.model}' {what} {found.chosen.threshold:g}, chosen {said}"]


def _line(found: Calibration, score: Score) -> str:
    marks = {"current": found.current, "best": found.best, "chosen": found.chosen}
    notes = ", ".join(name for name, it in marks.items() if it.threshold == score.threshold)
    error = "" if score.count_error is None else f"  {score.count_error:+12.1f}"
    return f"{score.threshold:9g}  {score.value:{len(found.metric)}.4f}{error}  {notes}".rstrip()

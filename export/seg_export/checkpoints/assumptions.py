"""What the export of a plain state dict takes for granted, since weights say nothing about the images.

A U-Net trained on `pixels / 255` and published with another mean passes verification, which compares the
graph with the module and not with what the module was trained on, and finds less than it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seg_export.checkpoints.assumption import Assumption
from seg_export.checkpoints.known import is_known
from seg_export.checkpoints.types import Checkpoint
from seg_export.families import family_named
from seg_runtime.spec import ModelSpec

__all__ = ["Assumption", "assumed_values", "assumptions", "assumptions_text"]


def assumptions(checkpoint: Checkpoint, spec: ModelSpec, *, size_given: bool) -> tuple[Assumption, ...]:
    """What the export of a checkpoint used, and where each value came from.

    Args:
        checkpoint: loaded weights.
        spec: of the first model that is made of it.
        size_given: whether the input's size was asked for.

    Returns:
        Nothing for a checkpoint that says how its images are to be prepared, for official weights and those
        of the package, of which it is known, and for random ones.
    """
    if checkpoint.described or is_known(checkpoint.sha256):
        return ()
    return tuple(family_named(checkpoint.family).assumptions(checkpoint, spec, size_given))


def assumed_values(found: Iterable[Assumption]) -> dict[str, str]:
    """The values that nobody stated, by what they are: for the contract."""
    return {each.what: each.value for each in found if each.origin == "assumed"}


def assumptions_text(found: Sequence[Assumption]) -> str:
    """One block for people, of a line per value; "" when there is nothing."""
    if not found:
        return ""
    widths = [max(len(getattr(each, name)) for each in found) for name in ("what", "value", "origin")]
    rows = [
        f"  {each.what:{widths[0]}}  {each.value:{widths[1]}}  {each.origin:{widths[2]}}  " + _setting(each)
        for each in found
    ]
    count = len(assumed_values(found))
    return "\n".join(
        line.rstrip()
        for line in (
            f"the file does not say all: {count} of the {len(found)} values below are assumed"
            if count
            else "all values below were given, or read off the file",
            *rows,
            "Verification proves that the graph equals its original; only labelled images prove that these "
            "values are those of the training: --images FOLDER --masks FOLDER, or seg-bench run --data "
            "FOLDER",
            'What each means: docs/models.md, "Plain state dicts"',
        )
    )


def _setting(assumption: Assumption) -> str:
    if assumption.origin in ("file", "family"):
        return ""
    return f"set by {assumption.set_by}" if assumption.set_by else "nothing sets it"

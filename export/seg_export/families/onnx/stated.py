"""What the options say of the images that a graph was trained on, and what they leave open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from seg_export.checkpoints.assumption import Assumption
from seg_export.checkpoints.claims import check_claims, check_statistics
from seg_export.checkpoints.types import Preprocessing, usual_preprocessing
from seg_export.cli.preprocessing import PreprocessingOptions
from seg_export.families.onnx.interface import Interface
from seg_export.families.onnx.model import default_names
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ClaheSpec

__all__ = ["stated"]

_STATISTICS = ("mean", "std", "scale")


def stated(
    options: PreprocessingOptions, found: Interface
) -> tuple[Preprocessing, tuple[str, ...], tuple[Assumption, ...]]:
    """What a graph expects of its images, the names of its classes, and where each value came from.

    Raises:
        BadInputError: a value is missing, without --assume-defaults, has no effect or cannot be used.
    """
    missing = [name for name in _wanted(found) if getattr(options, name) is None]
    _refuse_without_effect(options, found)
    if missing and not options.assume_defaults:
        raise BadInputError(
            "a graph does not say how its images were prepared. Missing: "
            f"{', '.join(_option(name, found) for name in missing)}. Give them as the network was trained, "
            "or pass --assume-defaults, which takes the usual ones and prints each"
        )
    if not missing and options.assume_defaults:
        raise BadInputError("--assume-defaults has no effect where everything is given: leave it out")
    claims, channels = options.claims(), found.image.channels
    check_claims(claims, channels=channels, classes=found.classes)
    usual = usual_preprocessing(channels)
    preprocessing = Preprocessing(
        mean=claims.mean or usual.mean,
        std=claims.std or usual.std,
        clahe=ClaheSpec() if options.clahe else None,
        input_size_hw=found.image.size_hw,
        scale=255.0 if options.scale is None else options.scale,
        channel_order=options.channel_order or "rgb",
        threshold=0.5 if options.threshold is None else options.threshold,
    )
    if not found.image.takes_pixels:
        check_statistics(preprocessing)
    names = claims.class_names or default_names(found.classes)
    return preprocessing, names, tuple(_assumptions(options, found, preprocessing, names))


def _wanted(found: Interface) -> Iterator[str]:
    """Fields of `PreprocessingOptions` that a graph leaves open."""
    yield from () if found.image.takes_pixels else _STATISTICS
    if found.image.channels == 3:
        yield "channel_order"
    if found.image.channels in (1, 3):
        yield "clahe"
    yield "class_names"


def _refuse_without_effect(options: PreprocessingOptions, found: Interface) -> None:
    image = found.image
    without = (
        dict.fromkeys(_STATISTICS, "a graph that takes pixels of 0 to 255") if image.takes_pixels else {}
    )
    if image.channels != 3:
        without["channel_order"] = f"images of {image.channels} channels"
    if image.channels not in (1, 3):
        without["clahe"] = "images of other than 1 or 3 channels"
    if found.classes > 1:
        without["threshold"] = "several classes, of which the likeliest wins"
    for name, reason in without.items():
        if getattr(options, name) is not None:
            raise BadInputError(f"--{name.replace('_', '-')} has no effect on {reason}: leave it out")


def _assumptions(
    options: PreprocessingOptions, found: Interface, preprocessing: Preprocessing, names: tuple[str, ...]
) -> Iterator[Assumption]:
    shown = {
        "mean": ", ".join(f"{value:g}" for value in preprocessing.mean),
        "std": ", ".join(f"{value:g}" for value in preprocessing.std),
        "scale": f"pixels / {preprocessing.scale:g}",
        "channel_order": preprocessing.channel_order,
        "clahe": "yes" if preprocessing.clahe else "none",
        "class_names": ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        "threshold": f"{preprocessing.threshold:g}",
    }
    for name in (*_wanted(found), *(("threshold",) if found.classes == 1 else ())):
        origin: Literal["assumed", "option"] = "assumed" if getattr(options, name) is None else "option"
        yield Assumption(name.replace("_", " "), shown[name], origin, f"--{name.replace('_', '-')}")


def _option(name: str, found: Interface) -> str:
    """As people write it, for example "--mean (3 values)"."""
    if name == "clahe":
        return "--clahe or --no-clahe"
    channels = found.image.channels
    count = {"mean": channels, "std": channels, "class_names": found.classes}.get(name)
    return f"--{name.replace('_', '-')}" + (f" ({count})" if count else "")

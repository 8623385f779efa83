"""What somebody says about the images of a checkpoint that holds weights alone, and what is still open.

Weights do not say how images were prepared. Verification cannot find it out either, since PyTorch and the
graph get the same images; so it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from seg_export.checkpoints.known import is_known
from seg_export.checkpoints.types import Checkpoint, Preprocessing
from seg_export.families import family_named
from seg_runtime.errors import BadInputError, CheckpointError, RepositoryError
from seg_runtime.spec import VERSION_WITH_STATISTICS, ChannelOrder, ClaheSpec, ModelSpec, Resize

__all__ = [
    "Claims",
    "as_published",
    "check_claims",
    "check_published",
    "check_statistics",
    "missing_claims",
    "published_note",
    "published_preprocessing",
    "require_claims",
    "with_claims",
]

_OPTIONS = {
    "mean": "--mean",
    "std": "--std",
    "scale": "--scale",
    "channel_order": "--channel-order",
    "clahe": "--clahe or --no-clahe",
    "class_names": "--class-names",
    "threshold": "--threshold",
    "anchor_sizes": "--anchors",
    "size_hw": "--size",
}
"""How each is written on the command line, in the order in which they are asked for."""

_LEVELS = 5
"""Of the pyramid of torchvision's Mask R-CNN."""

_OPTIONAL = {"resize": "--resize"}


@dataclass(frozen=True, kw_only=True)
class Claims:
    """How the images of a network were prepared when it was trained; None for what is not said.

    Attributes:
        mean: per channel, of pixels divided by `scale`, in the order of `channel_order`.
        std: per channel, of pixels divided by `scale`, in the order of `channel_order`.
        scale: what pixels of 0..255 are divided by first: 255, or 1 for statistics of the pixels themselves.
        channel_order: of the images that the network was trained with.
        clahe: whether contrast was equalised, with OpenCV's limit of 2 in 8x8 tiles.
        class_names: one per output channel; of a Mask R-CNN without the background.
        threshold: a probability at or above it is foreground, for a network of one class.
        anchor_sizes: side in pixels of a Mask R-CNN's anchors, one per level.
        resize: how a Mask R-CNN's images are brought to its input's size; torchvision's way without it.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    channel_order: ChannelOrder | None = None
    clahe: bool | None = None
    class_names: tuple[str, ...] | None = None
    threshold: float | None = None
    anchor_sizes: tuple[int, ...] | None = None
    resize: Resize | None = None

    def said(self) -> dict[str, Any]:
        """Those that are not None, by their name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def with_claims(checkpoint: Checkpoint, claims: Claims) -> Checkpoint:
    """A checkpoint whose images are prepared as claimed; what is not claimed stays.

    Args:
        checkpoint: of a plain state dict.
        claims: none at all is allowed for any checkpoint.

    Raises:
        BadInputError: a claim about a checkpoint that says it itself, one that has no effect on such a
            network, a wrong number of values, or values that cannot be.

    Example:
        >>> import torch
        >>> plain = Checkpoint("unet", {}, {}, class_names=("foreground",), described=False)
        >>> claimed = with_claims(plain, Claims(mean=(0.0,), std=(1.0,), class_names=("lung",)))
        >>> claimed.preprocessing.std, claimed.class_names
        ((1.0,), ('lung',))
    """
    said = claims.said()
    for name in said:
        _check_effect(checkpoint, name)
    channels, classes = len(checkpoint.preprocessing.mean), len(checkpoint.class_names)
    check_claims(claims, channels=channels, classes=classes)
    if not said:
        return checkpoint
    changes = {name: value for name, value in said.items() if name in Preprocessing.__dataclass_fields__}
    if claims.clahe is not None:
        changes["clahe"] = ClaheSpec() if claims.clahe else None
    anchors = {"anchor_sizes": list(claims.anchor_sizes)} if claims.anchor_sizes else {}
    preprocessing = replace(checkpoint.preprocessing, **changes)
    claimed = replace(
        checkpoint,
        preprocessing=preprocessing,
        class_names=claims.class_names or checkpoint.class_names,
        arguments={**checkpoint.arguments, **anchors},
        stated=checkpoint.stated | said.keys(),
    )
    if "mean" in claimed.stated:
        check_statistics(preprocessing)
    return claimed


def missing_claims(checkpoint: Checkpoint, *, size_given: bool) -> tuple[str, ...]:
    """What nobody said about a checkpoint's images, as options, for example ("--mean (3 values)", "--size").

    Args:
        checkpoint: loaded weights, with what was claimed of them.
        size_given: whether the input's size was asked for.

    Returns:
        Nothing for a checkpoint that says so itself, for weights that are known by their SHA-256, for random
        ones, and for a family whose images are always prepared in one way.
    """
    said = checkpoint.stated | ({"size_hw"} if size_given else set())
    wanted = {
        "mean": f" ({_count(len(checkpoint.preprocessing.mean), 'value')})",
        "std": f" ({_count(len(checkpoint.preprocessing.std), 'value')})",
        "class_names": f" ({_count(len(checkpoint.class_names), 'name')})",
    }
    return tuple(
        option + wanted.get(name, "")
        for name, option in _OPTIONS.items()
        if name in _open(checkpoint) and name not in said
    )


def require_claims(checkpoint: Checkpoint, *, size_given: bool) -> None:
    """Refuse a checkpoint of which `missing_claims` finds anything missing. Raises BadInputError."""
    if missing := missing_claims(checkpoint, size_given=size_given):
        unread = checkpoint.metadata.get("unread")
        reason = (
            f"the folder prepares images by {unread:.60}, which is not understood"
            if unread
            else "the weights alone do not say how their images were prepared"
        )
        raise BadInputError(
            f"{reason}. Missing: {', '.join(missing)}. Give them as the network was trained, or pass "
            "--assume-defaults"
        )


def as_published(checkpoint: Checkpoint, spec: ModelSpec) -> Checkpoint:
    """A checkpoint of weights alone with what the contract of a published model says of its images.

    Returns:
        The same checkpoint where it says so itself, or where the contract does not say it or is another
        network's.
    """
    preprocessing = checkpoint.preprocessing
    shapes = len(preprocessing.mean), len(checkpoint.class_names)
    if not _open(checkpoint) or (len(spec.mean), len(spec.class_names)) != shapes:
        return checkpoint
    published = replace(
        preprocessing,
        mean=spec.mean,
        std=spec.std,
        clahe=spec.clahe,
        scale=spec.scale,
        channel_order=spec.channel_order,
        threshold=spec.threshold,
        resize=spec.resize,
    )
    return replace(checkpoint, preprocessing=published, class_names=spec.class_names)


def published_preprocessing(spec: ModelSpec) -> Preprocessing:
    """How the contract of a published model says that its images are prepared.

    Raises:
        RepositoryError: a contract of version 1, which does not say it.
    """
    if spec.contract_version < VERSION_WITH_STATISTICS:
        raise RepositoryError(
            f"model '{spec.name}' has a contract of version {spec.contract_version}, which does not hold "
            f"mean, std, scale and channel order: publish it again with  seg-export {spec.family}"
        )
    return Preprocessing(
        spec.mean, spec.std, spec.clahe, spec.input_size_hw, spec.scale, spec.channel_order, spec.threshold
    )


def published_note(checkpoint: Checkpoint, spec: ModelSpec) -> str:
    """What `as_published` took from a contract, for people; "" where a checkpoint says all itself."""
    if not _open(checkpoint):
        return ""
    if not spec.mean:
        return (
            f"the checkpoint holds weights alone and the contract of '{spec.name}' has no mean and std: "
            "defaults were taken, which need not be those that it was published with"
        )
    return (
        f"the checkpoint holds weights alone: mean, std and class names are those that '{spec.name}' was "
        "published with"
    )


def _open(checkpoint: Checkpoint) -> frozenset[str]:
    """What the weights leave open, by the names of `Claims`, and "size_hw"."""
    if checkpoint.described or is_known(checkpoint.sha256):
        return frozenset()
    return frozenset(family_named(checkpoint.family).left_open(checkpoint)) - checkpoint.carried


def _check_effect(checkpoint: Checkpoint, name: str) -> None:
    """Refuse a claim that changes nothing, or that contradicts the checkpoint."""
    option = (_OPTIONS | _OPTIONAL)[name]
    what = name.replace("_", " ").replace("clahe", "CLAHE")
    if checkpoint.metadata.get("weights") == "random":
        raise BadInputError(f"{option} has no effect on random weights: leave it out")
    if checkpoint.described or name in checkpoint.carried:
        raise BadInputError(f"the checkpoint says its own {what}: leave {option} out")
    family = family_named(checkpoint.family)
    if is_known(checkpoint.sha256) or not family.left_open(checkpoint):
        raise BadInputError(f"the {what} of these weights is known: leave {option} out")
    if name in family.choices or name in family.left_open(checkpoint):
        return
    reason = _WITHOUT_EFFECT.get(name, f"a {family.title}")
    raise BadInputError(f"{option} has no effect on {reason}: leave it out")


_WITHOUT_EFFECT = {
    "channel_order": "a network that takes other than 3 channels",
    "clahe": "a network that takes other than 1 or 3 channels",
    "threshold": "a network of several classes, of which the likeliest wins",
}


def check_claims(claims: Claims, *, channels: int, classes: int) -> None:
    """Refuse a wrong number of values for a network, and values that cannot be. Raises BadInputError."""
    for option, values, count, each in (
        ("--mean", claims.mean, channels, "channel"),
        ("--std", claims.std, channels, "channel"),
        ("--class-names", claims.class_names, classes, "class"),
        ("--anchors", claims.anchor_sizes, _LEVELS, "level"),
    ):
        if values is not None and len(values) != count:
            shown = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
            what = "name" if each == "class" else "value"
            raise BadInputError(
                f"{option} {shown}: {_count(len(values), what)}, expected {count}, one per {each} of the "
                "network"
            )
    _check_numbers(
        {
            "--mean": (claims.mean or (), -math.inf, "finite numbers"),
            "--std": (claims.std or (), 0.0, "finite numbers above 0"),
            "--scale": (_listed(claims.scale), 0.0, "a finite number above 0"),
            "--anchors": (claims.anchor_sizes or (), 0.0, "sides in pixels above 0"),
        }
    )
    if claims.threshold is not None and not 0 <= claims.threshold <= 1:
        raise BadInputError(f"--threshold {claims.threshold:g}: expected a probability, 0 to 1")
    names = claims.class_names or ()
    if not all(name.strip() and name.isprintable() for name in names) or len(set(names)) < len(names):
        shown = ",".join(names)
        raise BadInputError(
            f"--class-names {shown:.80}: expected different names, none of them empty or of several lines"
        )


def check_statistics(preprocessing: Preprocessing) -> None:
    """Refuse a mean that no image can have after the scale.

    Raises:
        BadInputError: says which scale the mean is for.

    Example:
        >>> check_statistics(Preprocessing(mean=(123.7,), std=(58.4,), scale=1.0))
    """
    mean, std, scale = preprocessing.mean, preprocessing.std, preprocessing.scale
    shown = ", ".join(f"{value:g}" for value in mean)
    largest = 255 / scale
    if any(abs(value) > largest for value in mean):
        raise BadInputError(
            f"mean {shown} is outside of pixels / {scale:g}, which are 0 to {largest:g}: pass the --scale "
            "that it was taken with, --scale 1 for a mean of pixel values"
        )
    if scale < 2 and any(mean) and max(map(abs, mean)) <= 1 and max(std) <= 1:
        raise BadInputError(
            f"mean {shown} is of pixels from 0 to 1, and with --scale {scale:g} they are 0 to {largest:g}: "
            "pass --scale 255, or the mean and std of pixel values"
        )


def _check_numbers(given: Mapping[str, tuple[tuple[float, ...], float, str]]) -> None:
    for option, (values, above, expected) in given.items():
        if not all(above < value < math.inf for value in values):
            shown = ",".join(f"{value:g}" for value in values)
            raise BadInputError(f"{option} {shown}: expected {expected}")


def _listed(value: float | None) -> tuple[float, ...]:
    return () if value is None else (value,)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def check_published(claims: Claims, spec: ModelSpec, folder: Path) -> None:
    """Refuse a folder that has changed what it says of its images since it was published.

    The threshold may be another one: `seg-bench calibrate` changes it where it is published.

    Args:
        claims: of the folder.
        spec: of the published model, which prepares images as it says.
        folder: for messages.

    Raises:
        CheckpointError: names the first difference.
    """
    for name, said in claims.said().items():
        published = spec.clahe is not None if name == "clahe" else getattr(spec, name)
        if said != published and name != "threshold":
            raise CheckpointError(
                f"'{folder}' has the {name.replace('_', ' ')} {said!s:.60} and model '{spec.name}' was "
                f"published with {published!s:.60}: export it again"
            )

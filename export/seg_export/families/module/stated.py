"""What the options of `seg-export module` say of images and classes."""

from __future__ import annotations

from dataclasses import fields, replace

from seg_export.checkpoints.types import Preprocessing
from seg_export.cli.preprocessing import PreprocessingOptions
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ClaheSpec

__all__ = ["stated_class_names", "stated_options", "stated_preprocessing"]


def stated_preprocessing(options: PreprocessingOptions, default: Preprocessing) -> Preprocessing:
    """What the options say, and the default where they say nothing.

    Raises:
        BadInputError: mean or std is not given and not to be assumed, or a value that cannot be.
    """
    missing = [name for name in ("mean", "std") if getattr(options, name) is None]
    if missing and not options.assume_defaults:
        flags = " and ".join(f"--{name}" for name in missing)
        raise BadInputError(
            f"give {flags} of the training: the weights do not say them, and with others masks are wrong; or "
            "pass --assume-defaults"
        )
    if options.assume_defaults and not missing:
        raise BadInputError("--assume-defaults has no effect with --mean and --std: leave it out")
    mean = default.mean if options.mean is None else _numbers("--mean", options.mean)
    std = default.std if options.std is None else _numbers("--std", options.std)
    if len(mean) != len(std):
        raise BadInputError(f"--mean has {len(mean)} values and --std {len(std)}: give one per channel")
    if min(std) <= 0:
        raise BadInputError(f"--std {options.std}: expected numbers above 0")
    if options.scale is not None and options.scale <= 0:
        raise BadInputError(f"--scale {options.scale:g}: expected a number above 0")
    return replace(
        default,
        mean=mean,
        std=std,
        clahe=ClaheSpec() if options.clahe else None if options.clahe is False else default.clahe,
        scale=default.scale if options.scale is None else options.scale,
        channel_order=options.channel_order or default.channel_order,
        threshold=default.threshold if options.threshold is None else options.threshold,
    )


def stated_class_names(options: PreprocessingOptions) -> tuple[str, ...]:
    """Those of --class-names; none without it. Raises BadInputError."""
    names = tuple(name.strip() for name in (options.class_names or "").split(","))
    if options.class_names is None:
        return ()
    if not all(names) or len(set(names)) != len(names):
        raise BadInputError(f"--class-names '{options.class_names}': expected different names as lung,heart")
    return names


def stated_options(options: PreprocessingOptions) -> tuple[str, ...]:
    """The options that were given, for example ("--mean", "--std")."""
    return tuple(
        f"--{field.name.replace('_', '-')}"
        for field in fields(options)
        if field.name != "assume_defaults" and getattr(options, field.name) is not None
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise BadInputError(
            f"{option} '{text}': expected a number per channel as 0.485,0.456,0.406"
        ) from error

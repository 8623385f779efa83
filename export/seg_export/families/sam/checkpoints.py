"""Where a SAM's weights come from: official files, files of one's own, constructor arguments in JSON."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from seg_export.checkpoints.download import OnBytes, cache_folder, download
from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from seg_export.families.sam.huggingface import check_sam_config, segment_anything_names
from seg_export.families.sam.network import VARIANTS, build_sam, sam_arguments, variant_name
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.hashing import file_sha256

__all__ = [
    "OFFICIAL",
    "download_official",
    "load_sam_checkpoint",
    "read_arguments",
    "read_variant_config",
    "recognise_sam",
    "variant_arguments",
]

_SOURCE = "https://dl.fbaipublicfiles.com/segment_anything/"

OFFICIAL = {
    "vit_b": (
        f"{_SOURCE}sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": (
        f"{_SOURCE}sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": (
        f"{_SOURCE}sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}
"""Address and SHA-256 of Meta's checkpoints."""


def variant_arguments(name: str) -> dict[str, Any]:
    """Constructor arguments of an official size. Raises BadInputError."""
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInputError(
            f"unknown SAM variant '{name}': {hint}known are {', '.join(VARIANTS)}; "
            "describe another one with --variant-config FILE.json"
        )
    return dict(VARIANTS[name])


def read_variant_config(path: Path) -> dict[str, Any]:
    """Constructor arguments from a JSON file, alone or under the key "constructor".

    Raises:
        BadInputError: the file is missing, is no JSON, or names other arguments than `build_sam`'s.
    """
    return read_arguments(path, build_sam, "SAM")


def read_arguments(path: Path, builder: Callable[..., Any], family: str) -> dict[str, Any]:
    """`read_variant_config` for the constructor of any family, which errors name."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot read the variant configuration {path}: {error}") from error
    arguments = document.get("constructor", document) if isinstance(document, dict) else None
    if not isinstance(arguments, dict):
        raise BadInputError(f"{path}: expected a JSON object of constructor arguments")
    parameters = inspect.signature(builder).parameters
    unknown = [name for name in arguments if name not in parameters]
    required = (name for name, parameter in parameters.items() if parameter.default is parameter.empty)
    missing = [name for name in required if name not in arguments]
    if unknown or missing:
        problem = f"does not know '{unknown[0]}'" if unknown else f"needs '{missing[0]}'"
        raise BadInputError(f"{path}: a {family} {problem}; its arguments are {', '.join(parameters)}")
    return arguments


def load_sam_checkpoint(
    path: Path, arguments: Mapping[str, Any] | None = None, weights: str | None = None
) -> Checkpoint:
    """Load a SAM's weights, which say by their shapes what SAM they are.

    Args:
        path: a state dict of `segment_anything.modeling.Sam`, or the file or folder of a `SamModel` of
            transformers.
        arguments: of `build_sam`, what the file must be; None for whatever it is.
        weights: as in `load_checkpoint`.

    Raises:
        CheckpointError: the file cannot be used, is no SAM's, or another one's (it says which).
    """
    checkpoint = load_checkpoint(path, weights)
    if checkpoint.family != "sam":
        raise CheckpointError(f"checkpoint {path} is a {checkpoint.family}, not a SAM")
    if arguments is None:
        return checkpoint
    wanted = _complete(arguments)
    different = [
        name for name, value in checkpoint.arguments.items() if _plain(wanted[name]) != _plain(value)
    ]
    if different:
        given = variant_name(checkpoint.arguments)
        details = ", ".join(
            f"{name} {_plain(checkpoint.arguments[name])} instead of {_plain(wanted[name])}"
            for name in different[:3]
        )
        what = f"is a {given}" if given else "is of another size"
        advice = f"pass --variant {given}" if given else "leave out --variant, or correct --variant-config"
        raise CheckpointError(f"checkpoint {path} {what}, not {_described(arguments)}: {details}; {advice}")
    return replace(checkpoint, arguments=dict(arguments))


def recognise_sam(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    """The SAM that tensors are, in segment_anything's names or in those of transformers; None for others.

    Args:
        tensors: a state dict.
        path: its file, next to which transformers keeps the configuration.

    Raises:
        CheckpointError: a SAM of transformers whose configuration says something else than its weights.
    """
    renamed = segment_anything_names(tensors, path)
    state_dict = tensors if renamed is None else renamed
    if (arguments := sam_arguments(state_dict)) is None:
        return None
    if renamed is not None:
        check_sam_config(arguments, path)
    size_hw = (arguments["image_size"], arguments["image_size"])
    return Checkpoint(
        family="sam",
        arguments=arguments,
        state_dict=state_dict,
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, size_hw),
        sha256=file_sha256(path),
        described=False,
        steps=() if renamed is None else ("put transformers' names of tensors back to segment_anything's",),
    )


def download_official(variant: str, *, folder: Path | None = None, on_bytes: OnBytes | None = None) -> Path:
    """Fetch an official checkpoint, or go on with a download that broke off, and check its hash.

    Args:
        variant: "vit_b", "vit_l" or "vit_h".
        folder: where it goes; None for edgeseg's cache folder. One that is there is not fetched again.
        on_bytes: called with the bytes at hand and the total.

    Raises:
        BadInputError: an unknown variant, or the server refuses the address.
        ServerUnavailableError: nobody answers.
        EdgesegError: the file cannot be written or has another hash.
    """
    variant_arguments(variant)
    url, sha256 = OFFICIAL[variant]
    path = (folder or cache_folder()) / url.rpartition("/")[2]
    return download(url, path, sha256=sha256, on_bytes=on_bytes, option="--checkpoint").path


def _described(arguments: Mapping[str, Any]) -> str:
    name = variant_name(arguments)
    return f"the {name} that was asked for" if name else "the SAM that was described"


def _complete(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with `build_sam`'s defaults."""
    defaults = {name: item.default for name, item in inspect.signature(build_sam).parameters.items()}
    return defaults | dict(arguments)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value

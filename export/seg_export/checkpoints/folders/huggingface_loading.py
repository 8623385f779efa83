"""Loading a network of transformers from the files of a folder, and from nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from seg_export.checkpoints.files import read_plain
from seg_export.checkpoints.folders.building import building
from seg_export.checkpoints.folders.folder import library, read_json
from seg_export.checkpoints.folders.huggingface_network import Logits, Queries, one_output
from seg_export.checkpoints.nested import first_three
from seg_export.checkpoints.tensors import check_finite, float32
from seg_runtime.errors import CheckpointError

__all__ = ["load_network", "offline_and_quiet"]

_FILES = ("model.safetensors", "pytorch_model.bin")
"""Of weights; either may be in parts, which a file with .index.json after its name lists."""


@contextmanager
def offline_and_quiet(transformers: ModuleType) -> Iterator[None]:
    """Let the library fetch nothing, as it does for backbones that it knows by name, and print nothing."""
    constants: Any = library("huggingface_hub.constants", "huggingface-hub")
    offline, logging = constants.HF_HUB_OFFLINE, transformers.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        constants.HF_HUB_OFFLINE = True
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_network(
    transformers: ModuleType, folder: Path, config: Mapping[str, Any], image_chw: tuple[int, int, int]
) -> Logits | Queries:
    """The network of a folder, with all weights that its output depends on.

    The files are read as those of any checkpoint: the library itself would also follow the configuration to
    other files, other networks and kernels.

    Args:
        transformers: the library, in `offline_and_quiet`.
        folder: with the weights.
        config: its `config.json`, with one architecture.
        image_chw: (channels, height, width) that the network can take.

    Raises:
        CheckpointError: a class that the library does not have or cannot build from this configuration, or
            weights that are missing, do not fit or are not finite.
    """
    architecture = config["architectures"][0]
    kind = getattr(transformers, architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise CheckpointError(
            f"'{folder}' is a {architecture}, which transformers {transformers.__version__} does not have: "
            "install a version that does"
        )
    tensors = _tensors(folder)
    loaded, found = _loaded(kind, folder, config, tensors)
    network = one_output(architecture, loaded)
    if problems := _misfits(network, found, tensors, image_chw):
        raise CheckpointError(
            f"the weights of '{folder}' do not fit the {architecture} of its config.json: "
            f"{first_three(problems)}"
        )
    return network


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a folder as float32. Raises CheckpointError."""
    tensors: dict[str, torch.Tensor] = {}
    for path in _parts(folder):
        part = float32(read_plain(path), path)
        check_finite(part, path)
        tensors |= part
    return tensors


def _parts(folder: Path) -> Sequence[Path]:
    """The file of weights, or those that it is split into. Raises CheckpointError."""
    for name in _FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            names = read_json(index).get("weight_map")
            if not isinstance(names, dict) or not all(
                Path(str(each)).name == each for each in names.values()
            ):
                raise CheckpointError(f"'{index}' has no weight_map to names of files in its folder")
            return [folder / each for each in sorted(set(names.values()))]
    raise CheckpointError(f"'{folder}' has no weights: expected {' or '.join(_FILES)} in it")


def _loaded(
    kind: Any, folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[Any, Mapping[str, Any]]:
    """A network with these weights, and what was missing. Raises CheckpointError."""
    wanted = kind.config_class.model_type
    if config.get("model_type", wanted) != wanted:
        raise CheckpointError(
            f"the config.json of '{folder}' is of a {config['model_type']} and names a "
            f"{kind.__name__}: correct what is wrong of the two"
        )
    usual = kind.config_class()
    arguments = {name: value for name, value in config.items() if hasattr(usual, name)}
    with building(folder, kind.__name__, arguments, _parts(folder)):
        network, found = kind.from_pretrained(
            None,
            config=kind.config_class.from_dict(dict(config)),
            state_dict=dict(tensors),
            dtype=torch.float32,
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # they are named, which its own error does not
            output_loading_info=True,
        )
    return network.eval(), found


def _misfits(
    network: Logits | Queries,
    found: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    image_chw: tuple[int, int, int],
) -> list[str]:
    """What is missing in the weights, has another shape or is too much, for people."""
    there = network.network.state_dict()
    missing = sorted(name for name in found["missing_keys"] if there[name].is_floating_point())
    # Indices that networks compute themselves come and go between versions of the library.
    indices = {_last(name) for name, tensor in tensors.items() if not tensor.is_floating_point()}
    surplus = sorted(name for name in found["unexpected_keys"] if _last(name) not in indices)
    return [
        *(f"no {name}" for name in (missing if _matter(network, missing, image_chw) else ())),
        *(
            f"{name} of {tuple(shape)} for {tuple(wanted)}"
            for name, shape, wanted in sorted(found["mismatched_keys"])
        ),
        *(f"{name} that it does not have" for name in surplus),
    ]


def _matter(network: Logits | Queries, missing: Sequence[str], image_chw: tuple[int, int, int]) -> bool:
    """Whether the output depends on any of the missing weights; else they become 0.

    DPT has layers that no image passes, and its published files come without their weights; others come
    without those of heads that serve training alone.
    """
    if not missing:
        return False
    weights = network.network.state_dict()
    image = torch.randn(1, *image_chw, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for name in missing:
            weights[name].fill_(torch.nan)
        try:
            matter = not bool(torch.isfinite(network(image)).all())
        except RuntimeError:  # an image of a size that it cannot take
            return True
        for name in missing:
            weights[name].zero_()
    return matter


def _last(name: str) -> str:
    """The end of a tensor's name, which stays where the library renames what is before it."""
    return name.rpartition(".")[2]

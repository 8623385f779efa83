"""Damage to a model repository: the fields of a contract, its files, and what lies in their place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from microbench.damage import damaged
from seg_runtime.repository import CONFIG_FILE, GRAPH_FILE

__all__ = ["REPOSITORY_DAMAGES"]

_VALUES = (
    "", " ", "-1", "0", "²", "1.5", "1e999", "nan", "true", "null", "text", "9" * 5000, "[" * 100_000,
    "{}", "[]", "[null]", "[NaN]", '["a"]', "[1e400]", '{"a": 1}', "-1x8", "8x100000", "16384x16384", "65x63",
    "1x1", "16", "3",
    '{"clip_limit": 2, "tile_grid_hw": [0, 0]}', '{"clip_limit": 1e300, "tile_grid_hw": [8, 8]}',
    '{"max_abs": 0, "max_rel": 0, "mask_iou": 7}', "instances", "tensorrt", "../../other",
    "\x1b[31mred\nline",
)  # fmt: skip
_NUMBERS = (-(2**31), -2, -1, 0, 1, 7, 2**31 - 1)
_THINGS = (
    "FIFO", "loop", "/dev/zero", "/dev/null", "link to the repository", "folder", "empty file", "nowhere",
)  # fmt: skip
_IN_PLACE = tuple(product(_THINGS, (".", CONFIG_FILE, "1", f"1/{GRAPH_FILE}")))


def _config(model: Path) -> pb.ModelConfig:
    return text_format.Parse((model / CONFIG_FILE).read_text(encoding="utf-8"), pb.ModelConfig())


def _write(model: Path, config: pb.ModelConfig) -> None:
    (model / CONFIG_FILE).write_text(text_format.MessageToString(config), encoding="utf-8")


def _parameter(model: Path, rng: Random, seed: int) -> None:
    """A field of the contract with another value, or without any."""
    config = _config(model)
    key = rng.choice([*sorted(config.parameters), "dynamic_axes", "by_products", "clahe", "unknown"])
    if rng.random() < 0.1 and key in config.parameters:
        del config.parameters[key]
    else:
        config.parameters[key].string_value = rng.choice(_VALUES)
    _write(model, config)


def _tensor(model: Path, rng: Random, seed: int) -> None:
    """What Triton itself reads: tensors, batch, version, backend, name."""
    config, number = _config(model), rng.choice(_NUMBERS)
    changes: tuple[Callable[[], object], ...] = (
        lambda: setattr(config, "max_batch_size", number),
        lambda: config.input[0].dims.__setitem__(rng.randrange(3), number),
        lambda: config.output[0].dims.__setitem__(rng.randrange(3), number),
        lambda: config.version_policy.specific.versions.__setitem__(0, number),
        lambda: setattr(config.input[0], "data_type", rng.randrange(14)),
        lambda: setattr(config.output[0], "name", rng.choice(("", "probabilities2", "x" * 10_000))),
        config.input.pop,
        config.output.pop,
        lambda: setattr(config, "backend", rng.choice(("", "python", "tensorrt", "../x"))),
        lambda: setattr(config, "name", rng.choice(("", "other", "../other"))),
        lambda: config.ensemble_scheduling.step.add(model_name=config.name, model_version=1),
        lambda: config.input.add(name="image", data_type=pb.TYPE_UINT8, dims=[32, 32, 1]),
    )
    rng.choice(changes)()
    _write(model, config)


def _config_bytes(model: Path, rng: Random, seed: int) -> None:
    path = model / CONFIG_FILE
    contents = (
        damaged(path.read_bytes(), (), rng.randrange(1000), "config"),
        damaged(path.read_bytes(), (), rng.randrange(1000), "config"),
        b"", b"\0" * 1000, b"\xff\xfe" * 100, b"parameters { " * 100_000, b"#" * 2**24,
        path.read_bytes() * 2,
    )  # fmt: skip
    path.write_bytes(rng.choice(contents))


def _graph(model: Path) -> Path:
    return next(model.glob(f"[0-9]*/{GRAPH_FILE}"))


def _graph_bytes(model: Path, rng: Random, seed: int) -> None:
    path = _graph(model)
    path.write_bytes(damaged(path.read_bytes(), (), rng.randrange(1000), "graph"))


def _graph_contents(model: Path, rng: Random, seed: int) -> None:
    """A graph that is none, is missing, or holds what it should not."""
    path = _graph(model)
    graph = onnx.load(path)
    changes: tuple[Callable[[], object], ...] = (
        lambda: graph.graph.ClearField("node"),
        lambda: graph.graph.ClearField("initializer"),
        graph.graph.output.pop,
        lambda: setattr(graph.graph.node[0], "op_type", "Unheard"),
        lambda: setattr(graph.graph.node[0], "domain", "com.example"),
        lambda: graph.graph.node[-1].output.__setitem__(0, "elsewhere"),
        lambda: setattr(graph.opset_import[0], "version", 99),
        lambda: setattr(graph.graph.input[0].type.tensor_type, "elem_type", 1),
        lambda: graph.graph.initializer[0].dims.append(2**40),
        lambda: _outside(graph.graph.initializer[0], rng),
        lambda: graph.graph.node.extend([graph.graph.node[0]] * 1000),
    )
    change = rng.randrange(len(changes) + 3)
    if change < len(changes):
        changes[change]()
        path.write_bytes(graph.SerializeToString())
        return
    path.unlink()
    if change == len(changes):
        path.touch()
    elif change == len(changes) + 1:
        path.mkdir()


def _outside(tensor: onnx.TensorProto, rng: Random) -> None:
    """Weights in a file that is not there, or not the model's."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location = rng.choice(("weights.bin", "../../../etc/passwd", "/etc/passwd", "."))
    tensor.external_data.add(key="location", value=location)


def _in_place(model: Path, rng: Random, seed: int) -> None:
    """Something else in the place of the model's folder, its configuration, its version or its graph."""
    thing, way = _IN_PLACE[seed % len(_IN_PLACE)]
    path = model / way
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    places: dict[str, Callable[[], object]] = {
        "FIFO": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to(path),
        "link to the repository": lambda: path.symlink_to(model.parent),
        "folder": path.mkdir,
        "empty file": path.touch,
    }
    places.get(thing, lambda: path.symlink_to(thing))()


def _versions(model: Path, rng: Random, seed: int) -> None:
    """Version folders under other names, empty, without rights, or many."""
    version, change = model / "1", rng.randrange(5)
    if change == 0:
        version.rename(model / rng.choice(("01", "²", "-1", "1.5", "9" * 200, "one", "2")))
    elif change == 1:
        for number in range(2, 2000):
            (model / str(number)).mkdir()
    elif change == 2:
        shutil.rmtree(version)
    elif change == 3:
        (model / "2").symlink_to(version)
        (version / "2").symlink_to(model)
    else:
        (model / "999999999999999999").mkdir()


REPOSITORY_DAMAGES: dict[str, tuple[int, Callable[[Path, Random, int], None]]] = {
    "contract fields": (10, _parameter),
    "tensors and versions of config.pbtxt": (10, _tensor),
    "bytes of config.pbtxt": (10, _config_bytes),
    "bytes of model.onnx": (10, _graph_bytes),
    "contents of model.onnx": (10, _graph_contents),
    "FIFOs, loops and devices": (len(_IN_PLACE), _in_place),
    "version folders": (8, _versions),
}
"""How many seeds are tried, and what damages a model's folder by a seeded generator or the seed."""

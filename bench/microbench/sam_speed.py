"""SAM's graphs against PyTorch and against the exports that others use: time, peak memory, answers.

Engines take turns, each turn in a process of its own: several large models in one process disturb
one another, and together they would not fit into memory. PyTorch runs with glibc's allocator
tuned, without which it is two to three times slower.

    python -m microbench.sam_speed prepare /tmp/sam --variant vit_b
    python -m microbench.sam_speed measure /tmp/sam --json bench/results/sam_speed.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seg_bench.baseline import TUNED_ALLOCATOR
from seg_bench.json_fields import to_json, write_json
from seg_bench.machine import describe_machine
from seg_bench.memory import peak_memory_mib

__all__ = ["answer_difference", "main", "measure", "measure_one", "prepare"]

PROMPTS = (1, 8, 64)
CALLS = {"encode": 1, "decode": 3}
"""Timed calls per turn, after one that is not timed."""

THREADS = 2
GRAPHS = {
    "encode": {"ours": "ours_encoder.onnx", "plain export": "plain_encoder.onnx"},
    "decode": {"ours": "ours_decoder.onnx", "official export": "official_decoder.onnx"},
}
EAGER = "PyTorch"


def prepare(folder: Path, variant: str) -> None:
    """Write the graphs that are compared, of one SAM with random weights, into a folder."""
    from seg_export.checkpoints.checkpoint import build_model
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.sam.checkpoints import variant_arguments
    from seg_export.families.sam.graphs import sam_models
    from seg_export.tracing.trace import optimise, save_graph, trace

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = random_checkpoint("sam", variant_arguments(variant))
    for part, model in zip(("encoder", "decoder"), sam_models(checkpoint, "sam", (1024, 1024)), strict=True):
        save_graph(optimise(trace(model), model), folder / f"ours_{part}.onnx")
    sam: Any = build_model(checkpoint)
    with warnings.catch_warnings():
        # The older exporter, which everybody used for these two graphs, warns about itself.
        warnings.simplefilter("ignore")
        _export_others(sam, folder)
    (folder / "variant").write_text(variant, encoding="utf-8")


def measure(folder: Path, rounds: int = 3) -> dict[str, Any]:
    """All figures, the engines of a task taking turns."""
    tasks = [("encode", 1), *(("decode", count) for count in PROMPTS)]
    return {
        "variant": (folder / "variant").read_text(encoding="utf-8"),
        "weights": "random",
        "threads": THREADS,
        "machine": to_json(describe_machine()),
        "command": "python -m microbench.sam_speed prepare FOLDER; ... measure FOLDER --json FILE",
        "rows": [row for what, prompts in tasks for row in _race(folder, what, prompts, rounds)],
    }


def measure_one(folder: Path, what: str, engine: str, prompts: int) -> dict[str, Any]:
    """One turn of one engine in this process; its answer goes to `answer.npy` in the folder.

    Returns:
        Raw seconds per call, and the peak resident memory of the process in GB.
    """
    run = _eager(folder, what, prompts) if engine == EAGER else _graph(folder, what, engine, prompts)
    np.save(folder / "answer.npy", run())
    seconds = []
    for _ in range(CALLS[what]):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak_gb": (peak_memory_mib(os.getpid()) or math.nan) * 1024**2 / 1e9}


def _race(folder: Path, what: str, prompts: int, rounds: int) -> list[dict[str, Any]]:
    """One row per engine: how long it took, how much faster than PyTorch it was, and how equal."""
    engines = (EAGER, *GRAPHS[what])
    turns: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    answers = {}
    for _ in range(rounds):
        for engine in engines:
            turns[engine].append(_turn(folder, what, engine, prompts))
            answers[engine] = np.load(folder / "answer.npy")
    rows = [_row(what, prompts, engine, turns, answers) for engine in engines]
    for row in rows:
        row["times_as_fast_as_pytorch"] = rows[0]["median_ms_per_item"] / row["median_ms_per_item"]
        sys.stderr.write(
            f"{what:6} {row['engine']:15} N={prompts:<3} {row['median_ms_per_item']:9.1f} ms  "
            f"{row['times_as_fast_as_pytorch']:.2f} x  {row['peak_gb']:.2f} GB\n"
        )
    return rows


def _row(
    what: str, prompts: int, engine: str, turns: dict[str, list[dict[str, Any]]], answers: dict[str, Any]
) -> dict[str, Any]:
    seconds = [second for turn in turns[engine] for second in turn["seconds"]]
    return {
        "what": what,
        "engine": engine,
        "prompts": prompts,
        "median_ms_per_item": statistics.median(seconds) * 1e3 / prompts,
        "peak_gb": max(turn["peak_gb"] for turn in turns[engine]),
        **answer_difference(what, answers[EAGER], answers[engine]),
        "seconds": seconds,
    }


def answer_difference(what: str, expected: Any, got: Any) -> dict[str, float]:
    """How far an answer is from PyTorch's: largest difference relative to the largest value, masks' IoU."""
    relative = float(np.abs(got - expected).max() / np.abs(expected).max())
    if what == "encode":
        return {"max_relative_difference": relative}
    ours, theirs = got > 0, expected > 0
    union = np.count_nonzero(ours | theirs, axis=(2, 3))
    shared = np.count_nonzero(ours & theirs, axis=(2, 3))
    worst = np.where(union, shared / np.maximum(union, 1), 1.0).min()
    return {"max_relative_difference": relative, "lowest_mask_iou": float(worst)}


def _turn(folder: Path, what: str, engine: str, prompts: int) -> dict[str, Any]:
    call = [sys.executable, "-m", "microbench.sam_speed", "one", str(folder)]
    tuned = TUNED_ALLOCATOR if engine == EAGER else {}
    answer = subprocess.run(
        [*call, "--what", what, "--engine", engine, "--prompts", str(prompts)],
        env={**os.environ, **tuned},
        stdout=subprocess.PIPE,
        check=True,
    )
    turn: dict[str, Any] = json.loads(answer.stdout)
    return turn


def _eager(folder: Path, what: str, prompts: int) -> Callable[[], Any]:
    import torch

    from seg_export.checkpoints.checkpoint import build_model
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.sam.checkpoints import variant_arguments

    torch.set_num_threads(THREADS)
    variant = (folder / "variant").read_text(encoding="utf-8")
    sam: Any = build_model(random_checkpoint("sam", variant_arguments(variant)))
    arrays = _inputs(what, prompts)

    def encode() -> Any:
        with torch.inference_mode():
            pixels = torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2).float()
            return sam.image_encoder(sam.preprocess(pixels)).numpy()

    def decode() -> Any:
        with torch.inference_mode():
            # Without its last column, which segment_anything adds by itself.
            points = tuple(torch.from_numpy(arrays[f"point_{name}"][:, :1]) for name in ("coords", "labels"))
            sparse, dense = sam.prompt_encoder(points=points, boxes=None, masks=None)
            embedding = torch.from_numpy(arrays["image_embeddings"])
            places = sam.prompt_encoder.get_dense_pe()
            return sam.mask_decoder.predict_masks(embedding, places, sparse, dense)[0].numpy()

    return encode if what == "encode" else decode


def _graph(folder: Path, what: str, engine: str, prompts: int) -> Callable[[], Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    path = folder / GRAPHS[what][engine]
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    arrays = _inputs(what, prompts)
    if engine == "official export":
        return _one_by_one(session, arrays)
    if engine == "plain export":
        arrays = {"pixels": arrays["image"].transpose(0, 3, 1, 2).astype(np.float32)}
    return lambda: session.run(None, arrays)[0]


def _one_by_one(session: Any, arrays: dict[str, Any]) -> Callable[[], Any]:
    """The official decoder takes one prompt per call, and upscales to the image's size in the graph."""
    common = {
        "image_embeddings": arrays["image_embeddings"],
        "mask_input": arrays["mask_input"],
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array([1024, 1024], np.float32),
    }
    calls = [
        {**common, "point_coords": coords[None], "point_labels": labels[None].astype(np.float32)}
        for coords, labels in zip(arrays["point_coords"], arrays["point_labels"], strict=True)
    ]
    return lambda: np.concatenate([session.run(None, call)[2] for call in calls])


def _inputs(what: str, prompts: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    if what == "encode":
        image = generator.integers(0, 256, (1, 1024, 1024, 3), np.uint8)
        return {"image": image, "valid_hw": np.array([[1024, 1024]], np.int32)}
    coords = np.zeros((prompts, 2, 2), np.float32)
    coords[:, 0] = generator.uniform(0, 1024, (prompts, 2))
    return {
        "image_embeddings": generator.standard_normal((1, 256, 64, 64), np.float32),
        "point_coords": coords,
        "point_labels": np.tile(np.array([1, -1], np.int32), (prompts, 1)),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(prompts, np.float32),
    }


def _export_others(sam: Any, folder: Path) -> None:
    import torch

    from seg_bench.official_decoder import export_official_decoder

    with torch.inference_mode():
        torch.onnx.export(
            sam.image_encoder,
            (torch.zeros(1, 3, 1024, 1024),),
            str(folder / GRAPHS["encode"]["plain export"]),
            input_names=["pixels"],
            opset_version=17,
            dynamo=False,
        )
    path = folder / GRAPHS["decode"]["official export"]
    export_official_decoder(sam, path, (1024, 1024), single_mask=False)


def main() -> None:
    """Entry point of `python -m microbench.sam_speed`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("step", choices=["prepare", "measure", "one"])
    parser.add_argument("folder", type=Path, help="Where the graphs lie.")
    parser.add_argument("--variant", default="vit_b", help="vit_b, vit_l or vit_h.")
    parser.add_argument("--json", type=Path, help="File for the figures.")
    parser.add_argument("--what", choices=["encode", "decode"], default="encode")
    parser.add_argument("--engine", default="ours")
    parser.add_argument("--prompts", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.step == "prepare":
        prepare(arguments.folder, arguments.variant)
        return
    if arguments.step == "measure":
        result = measure(arguments.folder)
    else:
        result = measure_one(arguments.folder, arguments.what, arguments.engine, arguments.prompts)
    if arguments.json:
        write_json(arguments.json, result)
    else:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

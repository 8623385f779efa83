"""Automatic masks of a whole image: ours against segment_anything's, on the CPU.

All find masks with the same ViT-B on the same photograph: the fp32 graph in ONNX Runtime, the fp16 graph in
OpenVINO, and the original in PyTorch, with glibc's allocator tuned, without which it is far slower. Each run
is a separate process, and they take turns.

    python -m microbench.sam_everything prepare /tmp/everything
    python -m microbench.sam_everything measure /tmp/everything --image truck.jpg \\
        --json bench/results/sam_everything.json
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
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.baseline import TUNED_ALLOCATOR
from seg_bench.json_fields import to_json, write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.memory import peak_memory_mib

__all__ = ["main", "measure", "measure_one", "paired"]

OURS, HALF, ORIGINAL = "edgeseg", "edgeseg_fp16_openvino", "segment_anything"
SIDES = (OURS, HALF, ORIGINAL)
NAME, HALF_NAME = "sam", "sam_fp16"
THREADS = 2
MIN_IOU = 0.98
SETTINGS: dict[str, Any] = {
    "points_per_side": 32,
    "pred_iou_thresh": 0.35,
    "stability_score_thresh": 0.53,
    "output_mode": "uncompressed_rle",
}
"""The decoder is less sure of itself on an untrained encoder's embeddings than the defaults expect."""

Masks = list[dict[str, Any]]


def measure(folder: Path, image: Path, rounds: int = 3, command: str = "") -> dict[str, Any]:
    """Time all sides in turns, and pair the masks of the last round with the original's."""
    rows = [_in_process(folder, image, engine) for _ in range(rounds) for engine in SIDES]
    found = {engine: _read_masks(folder, engine) for engine in SIDES}
    seconds = {
        engine: statistics.median(row["seconds"] for row in rows if row["engine"] == engine)
        for engine in found
    }
    return {
        "schema": "edgeseg-sam-everything/2",
        "command": command,
        "machine": to_json(describe_machine()),
        "threads": THREADS,
        "weights": "random encoder; prompt encoder and decoder of sam_tiny",
        "image": image.name,
        "settings": SETTINGS,
        "median_seconds": seconds,
        "times_as_fast": {engine: seconds[ORIGINAL] / seconds[engine] for engine in (OURS, HALF)},
        "masks": {engine: len(masks) for engine, masks in found.items()},
        "share_paired": {engine: paired(found[engine], found[ORIGINAL]) for engine in (OURS, HALF)},
        "pairs_need_iou": MIN_IOU,
        "rows": rows,
    }


def measure_one(folder: Path, image: Path, engine: str) -> dict[str, Any]:
    """Find everything once in this process, and keep the masks in the folder.

    Returns:
        Seconds of the whole, of the encoder and of the decoder, and the peak resident memory of the
        process in GB.
    """
    from seg_runtime.files.images import read_image

    pixels, spent = read_image(image, 3), defaultdict[str, float](float)
    generate = (
        _original(folder, pixels, spent) if engine == ORIGINAL else _ours(folder, pixels, spent, engine)
    )
    spent.clear()  # One encoding and one prompt were the warm-up.
    start = time.perf_counter()
    masks = generate()
    seconds = time.perf_counter() - start
    (folder / f"{engine}.json").write_text(json.dumps(masks), encoding="utf-8")
    return {
        "engine": engine,
        "seconds": seconds,
        "encoder_s": spent["encoder"],
        "decoder_s": spent["decoder"],
        "masks": len(masks),
        "peak_gb": (peak_memory_mib(os.getpid()) or math.nan) * 1024 / 1e6,
    }


def paired(ours: Masks, theirs: Masks) -> float:
    """Share of the masks of both sides that have a partner on the other with an IoU of `MIN_IOU`."""
    if not ours and not theirs:
        return 1.0
    alone = [
        not any(_iou(one, other) >= MIN_IOU for other in others)
        for masks, others in ((ours, theirs), (theirs, ours))
        for one in masks
    ]
    return 1 - sum(alone) / len(alone)


def _iou(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Intersection over union of two records; 0 where their areas alone forbid a pair."""
    from seg_runtime.sam.rle import rle_to_mask

    small, large = sorted((one["area"], other["area"]))
    if small < MIN_IOU * large:
        return 0.0
    first, second = (rle_to_mask(record["segmentation"]) for record in (one, other))
    return float(np.count_nonzero(first & second) / max(np.count_nonzero(first | second), 1))


def _ours(
    folder: Path, image: NDArray[np.uint8], spent: dict[str, float], engine: str
) -> Callable[[], Masks]:
    from seg_runtime import SamAutomaticMaskGenerator, connect

    name, computes = (NAME, "onnxruntime") if engine == OURS else (HALF_NAME, "openvino")
    session: Any = connect(folder / "triton_repo", threads=THREADS, engine=computes)
    run = session.infer

    def timed_infer(model: str, *arguments: Any, **options: Any) -> Any:
        return _timed(run, spent, model.rpartition("_")[2])(model, *arguments, **options)

    session.infer = timed_infer
    generator = SamAutomaticMaskGenerator(session, name, **SETTINGS)
    generator.predictor.set_image(image)
    generator.predictor.predict([[5, 5]], [1])
    return lambda: generator.generate(image)


def _original(folder: Path, image: NDArray[np.uint8], spent: dict[str, float]) -> Callable[[], Masks]:
    import segment_anything
    import torch

    from seg_bench.random_sam import original_sam

    torch.set_num_threads(THREADS)
    sam = original_sam(folder)
    parts = {sam.image_encoder: "encoder", sam.prompt_encoder: "decoder", sam.mask_decoder: "decoder"}
    for module, name in parts.items():
        module.forward = _timed(module.forward, spent, name)
    generator = segment_anything.SamAutomaticMaskGenerator(sam, **SETTINGS)
    generator.predictor.set_image(image)
    generator.predictor.predict(np.array([[5, 5]]), np.array([1]))
    return lambda: list(generator.generate(image))


def _timed(call: Callable[..., Any], spent: dict[str, float], what: str) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            spent[what] += time.perf_counter() - start

    return timed


def _prepare(folder: Path, variant: str) -> None:
    from seg_bench.random_sam import prepare, sam_with_trained_decoder
    from seg_export.export import export_models

    prepare(folder, variant, NAME)
    export_models(sam_with_trained_decoder(variant), folder / "triton_repo", HALF_NAME, precision="fp16")


def _in_process(folder: Path, image: Path, engine: str) -> dict[str, Any]:
    call = [sys.executable, "-m", "microbench.sam_everything", "one", str(folder)]
    tuned = TUNED_ALLOCATOR if engine == ORIGINAL else {}
    answer = subprocess.run(
        [*call, "--image", str(image), "--engine", engine],
        env={**os.environ, **tuned},
        stdout=subprocess.PIPE,
        check=True,
    )
    row: dict[str, Any] = json.loads(answer.stdout)
    sys.stderr.write(f"{json.dumps(row)}\n")
    return row


def _read_masks(folder: Path, engine: str) -> Masks:
    masks: Masks = json.loads((folder / f"{engine}.json").read_text(encoding="utf-8"))
    return masks


def main() -> None:
    """Entry point of `python -m microbench.sam_everything`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("step", choices=["prepare", "measure", "one"])
    parser.add_argument("folder", type=Path, help="Where the models lie.")
    parser.add_argument("--variant", default="vit_b", help="vit_b, vit_l or vit_h.")
    parser.add_argument("--image", type=Path, help="The image to look at.")
    parser.add_argument("--rounds", type=int, default=3, help="Runs of each side.")
    parser.add_argument("--engine", choices=SIDES, default=OURS)
    parser.add_argument("--json", type=Path, help="File for the figures.")
    arguments = parser.parse_args()
    if arguments.step == "prepare":
        _prepare(arguments.folder, arguments.variant)
        return
    if arguments.image is None:
        parser.error("name the image with --image FILE")
    if arguments.step == "measure":
        command = shown_command(["python", "-m", "microbench.sam_everything", *sys.argv[1:]])
        result = measure(arguments.folder, arguments.image, arguments.rounds, command)
    else:
        result = measure_one(arguments.folder, arguments.image, arguments.engine)
    if arguments.json:
        write_json(arguments.json, result)
    else:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

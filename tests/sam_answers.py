"""Answers of one SAM to prompts of every kind, by either implementation, in a process of its own.

    python tests/sam_answers.py ours|original FOLDER IMAGE ANSWERS.npz

FOLDER is one of `seg_bench.random_sam.prepare`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.files.images import read_image

KINDS = ("one point", "several points", "box", "box and points", "point and mask", "box and mask", "batch")


def main(side: str, folder: Path, image: Path, answers: Path) -> None:
    pixels = read_image(image, 3)
    predictor, batch = (_ours if side == "ours" else _original)(folder)
    predictor.set_image(pixels)
    found: dict[str, NDArray[Any]] = {}
    for kind in KINDS:
        if kind == "batch":
            masks, scores, low_res = batch(_boxes(5, pixels.shape[:2]), pixels.shape[:2])
        else:
            masks, scores, low_res = predictor.predict(**_prompt(kind, pixels.shape[:2]))
        found |= {f"{kind} masks": masks, f"{kind} scores": scores, f"{kind} low_res": low_res}
    np.savez(answers, **found)


def _ours(folder: Path) -> tuple[Any, Any]:
    from seg_runtime import SamPredictor, connect

    predictor = SamPredictor(connect(folder / "triton_repo"), "sam")
    return predictor, lambda boxes, size_hw: predictor.predict_batch(
        None, None, predictor.transform.apply_boxes(boxes, size_hw)
    )


def _original(folder: Path) -> tuple[Any, Any]:
    import segment_anything
    import torch

    from seg_bench.random_sam import original_sam

    predictor = segment_anything.SamPredictor(original_sam(folder))

    def batch(boxes: NDArray[np.float64], size_hw: tuple[int, int]) -> list[NDArray[Any]]:
        corners = predictor.transform.apply_boxes_torch(torch.from_numpy(boxes), size_hw)
        return [tensor.numpy() for tensor in predictor.predict_torch(None, None, corners.float())]

    return predictor, batch


def _prompt(kind: str, size_hw: tuple[int, int]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if "box" in kind:
        arguments["box"] = _boxes(1, size_hw)[0]
    if "point" in kind:
        count = 3 if "points" in kind else 1
        shares = np.random.default_rng(0).uniform(0.1, 0.9, (count, 2))
        arguments["point_coords"] = shares * [size_hw[1], size_hw[0]]
        arguments["point_labels"] = np.array([1, 0, 1][:count])
    if "mask" in kind:
        # The same logits for both sides: a hill that fills a part of the image.
        y, x = np.mgrid[-1:1:256j, -1:1:256j]
        arguments["mask_input"] = (10 - 40 * ((x + 0.2) ** 2 + y**2))[None].astype(np.float32)
    return arguments


def _boxes(count: int, size_hw: tuple[int, int]) -> NDArray[np.float64]:
    random = np.random.default_rng(1)
    corners, sides = random.uniform(0, 0.6, (count, 2)), random.uniform(0.1, 0.4, (count, 2))
    height, width = size_hw
    return np.concatenate([corners, corners + sides], axis=1) * [width, height, width, height]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))

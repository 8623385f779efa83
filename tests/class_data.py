"""A tiny data set of three classes in colour, in every layout that classes are read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from seg_runtime.files.images import write_png
from seg_runtime.video.masks import davis_palette

NAMES = ("background", "disc", "bar")
COLOURS = np.array([[40, 40, 60], [200, 60, 50], [50, 180, 80]])
Layout = Literal["map", "palette", "folders", "coco"]


def labels(number: int, side: int = 48) -> NDArray[np.uint8]:
    """A disc in each image, and a thin bar in each third one."""
    found = np.zeros((side, side), np.uint8)
    cv2.circle(found, (14 + 3 * number % 20, 16 + 5 * number % 17), 9, 1, -1)
    if number % 3 == 0:
        found[36:42, 6:42] = 2
    return found


def write_classes(root: Path, layout: Layout = "map", count: int = 12, *, named: bool = True) -> Path:
    """Write images/ and the ground truth; with `classes.txt` where the layout itself has no names."""
    generator = np.random.default_rng(0)
    found = [labels(number) for number in range(count)]
    (root / "images").mkdir(parents=True)
    for number, each in enumerate(found):
        noise = generator.integers(-15, 15, (*each.shape, 3))
        pixels = np.clip(COLOURS[each] + noise, 0, 255).astype(np.uint8)
        write_png(root / "images" / f"scene_{number}.png", pixels)
    if layout == "coco":
        (root / "annotations.json").write_text(json.dumps(coco_document(found)))
        return root
    for number, each in enumerate(found):
        _write_truth(root / "classes", f"scene_{number}.png", each, layout)
    if named and layout != "folders":
        (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


def _write_truth(folder: Path, name: str, found: NDArray[np.uint8], layout: Layout) -> None:
    folder.mkdir(exist_ok=True)
    if layout == "map":
        write_png(folder / name, found)
    elif layout == "palette":
        image = Image.fromarray(found)
        image.putpalette(davis_palette())
        image.save(folder / name)
    else:
        for label, of_class in ((1, "disc"), (2, "bar")):
            if (found == label).any():
                (folder / of_class).mkdir(exist_ok=True)
                write_png(folder / of_class / name, np.where(found == label, 255, 0).astype(np.uint8))


def coco_document(found: list[NDArray[np.uint8]]) -> dict[str, Any]:
    """Run lengths as COCO's crowds have them, and compressed ones; ids with gaps."""
    annotations = []
    for number, each in enumerate(found):
        for label, category in ((1, 7), (2, 9)):
            if (each == label).any():
                rle = coco.encode(np.asfortranarray(each == label))
                counts = rle["counts"].decode()
                shape = {"size": rle["size"], "counts": counts}
                annotations.append({"image_id": 100 + number, "category_id": category, "segmentation": shape})
    images = [
        {"id": 100 + number, "file_name": f"scene_{number}.png", "height": 48, "width": 48}
        for number in range(len(found))
    ]
    categories = [{"id": 9, "name": "bar"}, {"id": 7, "name": "disc"}]
    return {"images": images, "annotations": annotations, "categories": categories}

"""Ground truth in COCO's format: `annotations.json` next to `images/`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from seg_bench.data.class_names import BACKGROUND, check_names
from seg_bench.data.class_truths import CocoAnnotations
from seg_runtime.errors import BadInputError

__all__ = ["COCO_FILE", "coco_classes", "coco_truths"]

COCO_FILE = "annotations.json"


def coco_classes(root: Path) -> tuple[str, ...]:
    """The background, and the categories in the order of their ids. Raises BadInputError as `coco_truths`."""
    document = _document(root / COCO_FILE)
    names = [str(each["name"]) for each in _categories(document)]
    return check_names(names if BACKGROUND in names[:1] else [BACKGROUND, *names], f"'{root / COCO_FILE}'")


def coco_truths(root: Path, images: Iterable[Path]) -> dict[Path, CocoAnnotations]:
    """The annotations of each image; of one without any all is background.

    Args:
        root: folder with `annotations.json`.
        images: files, which the JSON names with or without folders.

    Raises:
        BadInputError: it is no JSON of COCO's format, or does not know an image.
    """
    path = root / COCO_FILE
    document = _document(path)
    names = coco_classes(root)
    numbers = {each["id"]: names.index(str(each["name"])) for each in _categories(document)}
    shapes: defaultdict[Any, list[tuple[int, Any]]] = defaultdict(list)
    try:
        known = {Path(str(each["file_name"])).name: each for each in document["images"]}
        for each in document["annotations"]:
            shapes[each["image_id"]].append((numbers[each["category_id"]], each["segmentation"]))
        return {
            image: CocoAnnotations(
                tuple(shapes[entry["id"]]), (int(entry["height"]), int(entry["width"])), path
            )
            for image, entry in ((image, known[image.name]) for image in images)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"'{path}' does not fit: {error} is missing or wrong. Every image of images/ needs an entry with "
            "id, file_name, height and width, every annotation image_id, category_id and segmentation"
        ) from error


@lru_cache(maxsize=1)
def _read(path: Path, _modified: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _document(path: Path) -> dict[str, Any]:
    try:
        document = _read(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadInputError(f"cannot read '{path}': it is not JSON in COCO's format") from error
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise BadInputError(f"'{path}' is not in COCO's format: it needs images, annotations and categories")
    return document


def _categories(document: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        return sorted(document["categories"], key=lambda each: int(each["id"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            "a category of the COCO annotations has no id or name: export them again"
        ) from error

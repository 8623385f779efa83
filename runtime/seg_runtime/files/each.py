"""Runs image files through a model in batches: a file that fails is left out, and the others are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_runtime.boundary import attempt, one_line
from seg_runtime.errors import EdgesegError
from seg_runtime.files.images import LoadedImage
from seg_runtime.files.listing import image_stem
from seg_runtime.files.results import FileResult, ResultsFile, Row

__all__ = ["ReadImage", "each_file"]

RowT = TypeVar("RowT", bound=Row)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class ReadImage:
    """An image that could be read, its file, and what the names of its results begin with."""

    path: Path
    name: str
    loaded: LoadedImage

    @property
    def image(self) -> NDArray[np.uint8]:
        """The pixels, as the model takes them."""
        return self.loaded.pixels


def each_file(
    paths: Sequence[Path],
    out: Path,
    *,
    read: Callable[[Path], LoadedImage],
    stream: Callable[[list[NDArray[np.uint8]]], Iterator[ResultT]],
    write: Callable[[ReadImage, ResultT], RowT],
    batch_size: int,
) -> Iterator[FileResult | RowT]:
    """Read, run and write image files, and `results.jsonl` with a line for each.

    Args:
        paths: the files.
        out: the folder of the results; made once the first image was run.
        read: reads a file.
        stream: gives the results of a batch of images, in order.
        write: writes the files of one result.
        batch_size: images to run together. A batch that fails is run again image by image.

    Yields:
        One row per path, in order; a `FileResult` with an error of a file that failed in whatever way.

    Raises:
        BadInputError: `out` cannot be written to.
        ServerError: the server is away.
    """
    files = iter(list(zip(paths, _unique_names(paths), strict=True)))
    with ResultsFile(out) as file:
        while batch := _read_batch(files, read, batch_size):
            for item, result in _run_batch(batch, stream):
                if isinstance(item, FileResult):
                    yield file.add(item)
                    continue
                file.open()
                yield file.add(_finish(item, result, write))


def _read_batch(
    files: Iterator[tuple[Path, str]], read: Callable[[Path], LoadedImage], size: int
) -> list[ReadImage | FileResult]:
    """The next `size` images that can be read, and the failures between them."""
    batch: list[ReadImage | FileResult] = []
    for path, name in files:
        loaded = attempt(partial(read, path))
        batch.append(
            _failed(path, loaded) if isinstance(loaded, EdgesegError) else ReadImage(path, name, loaded)
        )
        if sum(isinstance(item, ReadImage) for item in batch) == size:
            break
    return batch


def _run_batch(
    batch: list[ReadImage | FileResult], stream: Callable[[list[NDArray[np.uint8]]], Iterator[ResultT]]
) -> Iterator[tuple[ReadImage | FileResult, Any]]:
    """Each item of a batch in order, with the result of a `ReadImage`."""
    results = _results([item for item in batch if isinstance(item, ReadImage)], stream)
    for item in batch:
        if isinstance(item, FileResult):
            yield item, None
            continue
        result = next(results)
        yield (_failed(item.path, result), None) if isinstance(result, EdgesegError) else (item, result)


def _results(
    images: Sequence[ReadImage], stream: Callable[[list[NDArray[np.uint8]]], Iterator[ResultT]]
) -> Iterator[ResultT | EdgesegError]:
    results = stream([each.image for each in images])
    for place in range(len(images)):
        result = attempt(lambda: next(results))
        if isinstance(result, EdgesegError) and len(images) > 1:
            for each in images[place:]:
                yield from _results([each], stream)
            return
        yield result


def _finish(
    item: ReadImage, result: ResultT, write: Callable[[ReadImage, ResultT], RowT]
) -> FileResult | RowT:
    row = attempt(lambda: write(item, result))
    return _failed(item.path, row) if isinstance(row, EdgesegError) else row


def _failed(path: Path, error: EdgesegError) -> FileResult:
    text = one_line(error)
    return FileResult(path, text if str(path) in text else f"image '{path}': {text}")


def _unique_names(paths: Iterable[Path]) -> list[str]:
    # Compared without case: 'A_mask.png' and 'a_mask.png' are one file on some systems.
    used: set[str] = set()
    names = []
    for path in paths:
        stem = image_stem(path)
        name, number = stem, 1
        while name.casefold() in used:
            number += 1
            name = f"{stem}_{number}"
        used.add(name.casefold())
        names.append(name)
    return names

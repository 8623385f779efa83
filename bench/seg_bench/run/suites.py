"""Named benchmarks: a data set, the part that no shipped model was trained on, and which models fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg_runtime.errors import BadInputError

__all__ = ["SUITES", "Suite", "find_suite"]


@dataclass(frozen=True)
class Suite:
    """One benchmark.

    Attributes:
        data: where its images are looked for, unless another folder is given.
        part: of the shipped split of the data set; None takes every image. Of a folder that holds only some
            of the part's images, those are taken.
        kinds: of models that fit, as `seg_bench.run.subjects.Subject.kind`.
        how: how to get the images, for whoever has none.
    """

    data: Path
    part: str | None
    kinds: tuple[str, ...]
    how: str


SUITES = {
    "montgomery": Suite(
        Path("data/montgomery"),
        "test",
        ("semantic", "sam", "sam2"),
        "get it with  seg-bench data montgomery --out data/montgomery --prepare",
    ),
    "shenzhen": Suite(
        Path("data/shenzhen"),
        None,
        ("semantic", "sam", "sam2"),
        "put X-rays of the Shenzhen set into its images/ and their lung masks into its masks/",
    ),
    "nuclei": Suite(
        Path("data/nuclei"),
        "test",
        ("instances",),
        "unpack stage1_train of the Data Science Bowl 2018 into it",
    ),
}


def find_suite(name: str, data: Path | None) -> tuple[Suite, Path]:
    """A suite and the folder with its images.

    Args:
        name: of the suite.
        data: the folder that was asked for, or None for the suite's own.

    Raises:
        BadInputError: there is no such suite, or its images are not there.
    """
    if name not in SUITES:
        raise BadInputError(f"there is no suite '{name}': choose from {', '.join(SUITES)}")
    suite = SUITES[name]
    folder = data or suite.data
    if not folder.is_dir():
        raise BadInputError(
            f"the suite '{name}' is measured on {folder}, which is not there: {suite.how}, "
            "or give another folder with --data"
        )
    return suite, folder

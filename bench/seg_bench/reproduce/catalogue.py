"""The rows of the table: which networks it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from seg_bench.tracked import MEMORIES, split_name, tracked_name
from seg_runtime.errors import BadInputError

__all__ = ["GROUPS", "ROWS", "Images", "TableRow", "choose_rows"]

Images = Literal["masks", "objects"]
"""Which ground truth a row is measured with: one mask per image, or a map of objects."""


@dataclass(frozen=True)
class TableRow:
    """One network.

    Attributes:
        key: by which it is chosen, and how its models are named.
        title: as the table calls it.
        group: a key of `GROUPS`.
        family: as of a checkpoint.
        weights: name of weights that ship with edgeseg, or "random".
        gflop: of one call, a product and a sum counted as two; the mean where a network has several models.
        export_s: seconds that its export takes on two cores, in one precision.
        arguments: of its constructor, where weights are random.
        images: what it is measured on.
        most_images: of those.
        memories: of each tracked frame of a SAM2, which is measured like a model of another name.
        caveat: what a reader of its Dice must know, else empty.
    """

    key: str
    title: str
    group: str
    family: str
    weights: str
    gflop: float
    export_s: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    images: Images = "masks"
    caveat: str = ""
    most_images: int = 24
    memories: tuple[int, ...] = ()

    @property
    def random(self) -> bool:
        return self.weights == "random"

    def model(self, precision: str) -> str:
        """Name of its model; of a SAM, what the names of its models begin with."""
        return self.key if precision == "fp32" else f"{self.key}_{precision}"

    def measured(self, precision: str) -> tuple[str, ...]:
        """What a run calls that which is measured of it."""
        name = self.model(precision)
        return name, *(tracked_name(name, memories) for memories in self.memories)

    def title_of(self, measured: str) -> str:
        """As the table calls one of those."""
        memories = split_name(measured)[1]
        if not self.memories:
            return self.title
        if not memories:
            return f"{self.title}, a box"
        return f"{self.title}, a frame with {memories} memor{'y' if memories == 1 else 'ies'}"


GROUPS = {
    "shipped": "small networks that come trained with edgeseg",
    "article": "the networks of the article's table",
    "more": "detectors, SAMs of other sizes, and SAM2",
}

_UNET = {"in_channels": 1, "num_classes": 1, "bilinear": False, "features": [64, 128, 256, 512, 1024]}
_NESTED = {"in_channels": 1, "num_classes": 1}


def _sam2(size: str, title: str, gflop: float, export_s: float) -> TableRow:
    """SAM 2.1 of a size; the frames before a timed one are tracked for every image, so images are few."""
    return TableRow(
        f"sam2.1_{size}",
        f"SAM 2.1 {title}",
        "more",
        "sam2",
        "random",
        gflop,
        export_s,
        {"variant": f"sam2.1_{size}"},
        most_images=4,
        memories=MEMORIES,
    )


ROWS = {
    row.key: row
    for row in (
        TableRow("unet_lung", "U-Net, lungs", "shipped", "unet", "lung", 20, 12),
        TableRow("unetpp_lung", "U-Net++, lungs", "shipped", "unetpp", "unetpp_lung", 4.2, 15),
        TableRow("transunet_lung", "TransUNet, lungs", "shipped", "transunet", "transunet_lung", 2.4, 20),
        TableRow(
            "sam_tiny",
            "SAM tiny, a box per lung",
            "shipped",
            "sam",
            "sam_tiny",
            36,
            25,
            caveat="trained on these X-rays too",
        ),
        TableRow(
            "maskrcnn_nuclei", "Mask R-CNN, nuclei", "shipped", "maskrcnn", "nuclei", 19, 60, images="objects"
        ),
        TableRow("unet_31m", "U-Net 31M", "article", "unet", "random", 385, 30, _UNET),
        TableRow("unetpp", "U-Net++", "article", "unetpp", "random", 276, 40, _NESTED),
        TableRow("transunet", "TransUNet", "article", "transunet", "random", 58, 60, _NESTED),
        TableRow(
            "sam_vit_h", "SAM ViT-H, a box", "article", "sam", "random", 5960, 400, {"variant": "vit_h"}
        ),
        TableRow(
            "maskrcnn_r50",
            "Mask R-CNN R50-FPN",
            "more",
            "maskrcnn",
            "random",
            270,
            120,
            {"arch": "maskrcnn_resnet50_fpn", "num_classes": 91},
            images="objects",
        ),
        TableRow("sam_vit_b", "SAM ViT-B, a box", "more", "sam", "random", 972, 90, {"variant": "vit_b"}),
        TableRow("sam_vit_l", "SAM ViT-L, a box", "more", "sam", "random", 2990, 200, {"variant": "vit_l"}),
        _sam2("tiny", "tiny", 567, 90),
        _sam2("small", "small", 635, 100),
        _sam2("base_plus", "base+", 922, 140),
        _sam2("large", "large", 2098, 300),
    )
}
"""In the order in which they are measured: those with true Dice first, which are also the fastest."""


def choose_rows(names: Sequence[str]) -> tuple[TableRow, ...]:
    """The rows of these names, groups or patterns ("sam*"), in the order of the table; all without one.

    Raises:
        BadInputError: a name that is none.

    Example:
        >>> [row.key for row in choose_rows(["unet_31m", "shipped"])][-1]
        'unet_31m'
    """
    chosen: set[str] = set()
    for name in names or ("*",):
        found = {row.key for row in ROWS.values() if row.group == name or fnmatchcase(row.key, name)}
        if not found:
            raise BadInputError(
                f"--rows '{name}' is no row: choose from {', '.join(GROUPS)} (groups), {', '.join(ROWS)}"
            )
        chosen |= found
    return tuple(row for row in ROWS.values() if row.key in chosen)

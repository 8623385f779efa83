"""Under what terms weights are that a command fetches: what their publishers say, and no more."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["SAM", "SAM2", "TORCHVISION_COCO", "Licence"]


@dataclass(frozen=True)
class Licence:
    """The terms of some weights.

    Attributes:
        weights: whose they are.
        terms: an SPDX identifier, or what is known instead of one.
        source: address of the page that says so.

    Example:
        >>> print(Licence("Meta's SAM 2", "Apache-2.0", "https://example.org/README"))
        licence of Meta's SAM 2: Apache-2.0 (https://example.org/README)
    """

    weights: str
    terms: str
    source: str

    def __str__(self) -> str:
        return f"licence of {self.weights}: {self.terms} ({self.source})"

    def as_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return asdict(self)


SAM = Licence(
    "Meta's SAM weights", "Apache-2.0", "https://github.com/facebookresearch/segment-anything#license"
)
SAM2 = Licence("Meta's SAM 2 weights", "Apache-2.0", "https://github.com/facebookresearch/sam2#license")
TORCHVISION_COCO = Licence(
    "torchvision's Mask R-CNN weights",
    "code BSD-3-Clause; weights trained on COCO 2017, whose terms may extend to them",
    "https://github.com/pytorch/vision#pre-trained-model-license",
)

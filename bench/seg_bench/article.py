"""The figures to compare with, as the article printed them.

Source: "Semantic and Instance Segmentation: U-Net, Mask R-CNN and SAM", section 4, table
"Benchmark: Segmentation Models on Montgomery CXR Dataset". It names neither the machine nor the
image size behind its inference times, and its split is not published, so its figures stand beside
ours and are never mixed with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from seg_bench.records import Record

__all__ = ["ARTICLE_SOURCE", "ARTICLE_TABLE", "ArticleFigures", "article_figures", "article_row"]

ARTICLE_SOURCE = (
    'article "Semantic and Instance Segmentation: U-Net, Mask R-CNN and SAM", table "Benchmark: '
    'Segmentation Models on Montgomery CXR Dataset" (machine and split not stated)'
)


@dataclass(frozen=True)
class ArticleFigures:
    """One row of the article's table; parameters in millions, inference in milliseconds."""

    model: str
    dice: float
    iou: float
    parameters_m: float
    inference_ms: float


_DATA_SET = "montgomery"

ARTICLE_TABLE = {
    "unet": ArticleFigures("U-Net (original)", 0.967, 0.936, 31, 12),
    "unetpp": ArticleFigures("U-Net++ (nested)", 0.971, 0.943, 47, 18),
    "transunet": ArticleFigures("TransUNet (ViT backbone)", 0.974, 0.950, 105, 45),
    "sam": ArticleFigures("SAM (vit_h, box prompt)", 0.958, 0.920, 632, 120),
}


def article_row(record: Record) -> ArticleFigures | None:
    """The article's row for a record: that for its family, of lungs on Montgomery's X-rays only."""
    sets = (record.data.name, record.data.split or "")
    montgomery = any(name.lower().startswith(_DATA_SET) for name in sets)
    return article_figures(record.model.family) if montgomery else None


def article_figures(family: str) -> ArticleFigures | None:
    """The article's row for a model family, or None."""
    return ARTICLE_TABLE.get(family)

"""Greedy non-maximum suppression with fixed shapes, out of operators that every backend has.

A box is kept when no better kept box overlaps it too much. Written as `keep = alive and not any(overlap
and keep)` over the matrix of overlaps this is an equation with one solution, and applying it again and
again reaches it: after n rounds everything is settled that depends on no more than n other decisions
("cluster NMS", Zheng et al. 2021, https://arxiv.org/abs/2005.03572, which unrolls it over all boxes).
Here boxes are taken in blocks, the best first. What came before a block is final and enters with one
product, only the part of the matrix above the diagonal is made, and it stays in the processor's cache;
inside a block so few decisions depend on one another that a few rounds settle them.
"""

from __future__ import annotations

import torch

__all__ = ["BLOCK", "ROUNDS", "fixed_nms"]

BLOCK = 200
"""Boxes whose order is settled together."""

ROUNDS = 16
"""How often: a chain of suppressions inside one block may have this many links."""


def fixed_nms(
    boxes: torch.Tensor,
    alive: torch.Tensor,
    threshold: float,
    block: int = BLOCK,
    rounds: int = ROUNDS,
) -> torch.Tensor:
    """Which boxes greedy suppression keeps, in as many groups as there are.

    Args:
        boxes: (..., K, 4) float32 x0, y0, x1, y1 by falling score.
        alive: (..., K) float32, 1 for boxes that take part and 0 for those that only fill up.
        threshold: of two boxes whose intersection over union is above it, the first stays.
        block: boxes that are settled together.
        rounds: how often each block is gone over.

    Returns:
        (..., K) float32, 1 for the boxes that are kept. Equal to `torchvision.ops.nms` as long as no chain
        of suppressions inside a block has more links than `rounds`.
    """
    count = boxes.shape[-2]
    kept: list[torch.Tensor] = []
    for start in range(0, count, block):
        end = min(start + block, count)
        overlap = _overlaps(boxes[..., :end, :], boxes[..., start:end, :], threshold)
        candidates = alive[..., None, start:end]
        if kept:
            hits = torch.cat(kept, dim=-1) @ overlap[..., :start, :]
            candidates = candidates * (hits == 0).to(candidates.dtype)
        inside = overlap[..., start:end, :] * torch.ones(end - start, end - start).triu(1)
        keep = candidates
        for _ in range(rounds):
            keep = candidates * (keep @ inside == 0).to(candidates.dtype)
        kept.append(keep)
    return torch.cat(kept, dim=-1).squeeze(-2)


def _overlaps(first: torch.Tensor, second: torch.Tensor, threshold: float) -> torch.Tensor:
    """(..., I, 4) and (..., J, 4) to (..., I, J) float32, 1 where they overlap by more than a threshold.

    `intersection / union > t` is compared as `intersection > t / (1 + t) * (area + area)`.
    """
    x0, y0, x1, y1 = (first[..., index, None] for index in range(4))
    u0, v0, u1, v1 = (second[..., None, :, index] for index in range(4))
    width = (torch.minimum(x1, u1) - torch.maximum(x0, u0)).clamp(min=0)
    height = (torch.minimum(y1, v1) - torch.maximum(y0, v0)).clamp(min=0)
    share = threshold / (1 + threshold)
    areas = (x1 - x0) * (y1 - y0) * share + (u1 - u0) * (v1 - v0) * share
    return (width * height > areas).to(first.dtype)

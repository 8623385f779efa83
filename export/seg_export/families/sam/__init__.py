"""Segment Anything: an image encoder, and a mask decoder for many prompts on one encoded image."""

from __future__ import annotations

from seg_export.families.sam.family import SAM

__all__ = ["SAM"]

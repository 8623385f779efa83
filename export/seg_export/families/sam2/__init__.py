"""Segment Anything 2: images and videos, five graphs."""

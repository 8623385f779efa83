"""Segment Anything: an image encoder and a mask decoder."""

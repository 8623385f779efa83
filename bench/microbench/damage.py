"""Damage to bytes that knows nothing of their format: the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

__all__ = ["DAMAGES", "MARKER", "Damage", "damaged"]

MARKER = "code_was_run"
"""A file that appears in the current folder when code of a file was run."""

Damage = Callable[[bytes, Random], bytes]
"""Takes a file's bytes and a seeded generator."""

_HEAD_BYTES = 96


def _flip(data: bytes, rng: Random) -> bytes:
    """Bits anywhere, few or many."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32, 256))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _extreme_head(data: bytes, rng: Random) -> bytes:
    """A number of the header, wherever its numbers are, becomes one at the end of its range."""
    out, width = bytearray(data), rng.choice((1, 2, 4, 8))
    at = rng.randrange(min(_HEAD_BYTES, max(1, len(out) - width)))
    value = rng.choice((b"\0", b"\xff", b"\x7f" + b"\xff" * (width - 1), b"\x80" + b"\0" * (width - 1)))
    out[at : at + width] = (value * width)[:width]
    return bytes(out)


def _splice(data: bytes, rng: Random) -> bytes:
    """A piece is left out, comes twice, or is zero."""
    begin, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    piece = data[begin:end]
    return data[:begin] + rng.choice((b"", piece * 2, bytes(len(piece)))) + data[end:]


DAMAGES: tuple[Damage, ...] = (_flip, _cut, _extreme_head, _splice)


def damaged(data: bytes, special: tuple[Damage, ...], seed: int, name: str) -> bytes:
    """A file with the damage of this seed.

    Args:
        data: the file.
        special: damages that know its format; each is tried before the first comes again, and these of
            `DAMAGES` in between.
        seed: 0 and up.
        name: of the format or the like: another one is damaged elsewhere by the same seed.

    Example:
        >>> damaged(b"12345678", (), 1, "text") == damaged(b"12345678", (), 1, "text")
        True
    """
    rng = Random(f"{name} {seed}")
    kinds = [each for pair in zip(special, _repeated(len(special)), strict=True) for each in pair] or DAMAGES
    return kinds[seed % len(kinds)](data, rng)


def _repeated(count: int) -> list[Damage]:
    return [DAMAGES[index % len(DAMAGES)] for index in range(count)]

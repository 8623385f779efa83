"""Small video clips, made at run time: every frame tells its number in its pixels."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_runtime.video.capture import quiet


def numbered_frame(index: int, size_hw: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: the number in binary as 8 bars of black and white, which no codec blurs away."""
    bits = [(index >> bit) & 1 for bit in range(8)]
    row = np.repeat(np.array(bits, dtype=np.uint8) * 255, size_hw[1] // 8)
    frame = np.zeros((*size_hw, 3), dtype=np.uint8)
    frame[:, : len(row)] = row[None, :, None]
    # A colour that tells RGB from BGR.
    frame[size_hw[0] // 2 :, :, 2] //= 4
    return frame


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number in a frame of `numbered_frame`, read from its red channel."""
    width = frame.shape[1] // 8
    centers = frame[frame.shape[0] // 4, width // 2 :: width, 0][:8]
    return int(sum(int(value > 127) << bit for bit, value in enumerate(centers)))


def write_clip(
    path: Path, count: int, size_hw: tuple[int, int] = (48, 64), codec: str = "mp4v", fps: float = 25.0
) -> Path:
    """A clip of numbered frames."""
    return write_frames(path, [numbered_frame(index, size_hw) for index in range(count)], codec, fps)


def write_frames(path: Path, frames: list[NDArray[np.uint8]], codec: str = "mp4v", fps: float = 25.0) -> Path:
    """A clip written by OpenCV, and not by what is tested."""
    size_wh = frames[0].shape[1], frames[0].shape[0]
    with quiet():
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size_wh)
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1].copy())
    writer.release()
    return path


def with_index_first(path: Path) -> Path:
    """Move an mp4's index before its pictures, as downloads have it, so that a cut file can be opened."""
    data = path.read_bytes()
    boxes, position = {}, 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        boxes[data[position + 4 : position + 8]] = data[position : position + length]
        position += length
    index = bytearray(boxes[b"moov"])
    offsets = index.find(b"stco") + 4
    count = int.from_bytes(index[offsets + 4 : offsets + 8], "big")
    for place in range(offsets + 8, offsets + 8 + 4 * count, 4):
        moved = int.from_bytes(index[place : place + 4], "big") + len(index)
        index[place : place + 4] = moved.to_bytes(4, "big")
    rest = b"".join(box for name, box in boxes.items() if name not in (b"moov", b"ftyp"))
    path.write_bytes(boxes[b"ftyp"] + bytes(index) + rest)
    return path


def turned(path: Path, degrees: int) -> Path:
    """Say in an mp4's header, as phones do, that viewers turn it clockwise: 90, 180 or 270 degrees."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    return oriented(path, (cosine, sine, -sine, cosine))


def oriented(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Say in an mp4's header where viewers show (x, y): at (a x + c y, b x + d y) for (a, b, c, d)."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    # Track header: name, version and flags, 20 bytes of times and id, 16 of reserved fields and layer.
    place = data.find(b"tkhd") + 4 + 4 + 20 + 16
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


TICKS = 12_800
"""Per second, of the clock of an mp4 that OpenCV writes at 25 frames per second."""


def with_durations(path: Path, ticks: list[int]) -> Path:
    """Say in an mp4's header for how long each frame is shown: a variable rate, as phones have it."""
    runs = b"".join(struct.pack(">II", 1, count) for count in ticks)
    content = struct.pack(">II", 0, len(ticks)) + runs
    data = path.read_bytes()
    start = data.find(b"stts") - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    box = struct.pack(">I4s", 8 + len(content), b"stts") + content
    data = _replaced(data, start, end, box, (b"moov", b"trak", b"mdia", b"minf", b"stbl"))
    # The list of edits would cut it to its old length.
    path.write_bytes(data.replace(b"edts", b"free"))
    return path


def with_pixel_aspect(path: Path, wide: int, high: int) -> Path:
    """Say in an mp4's header how wide and high a pixel is shown."""
    data = path.read_bytes()
    start = data.rfind(b"mp4v") - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    box = struct.pack(">I4sII", 16, b"pasp", wide, high)
    parents = b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4v"
    path.write_bytes(_replaced(data, end, end, box, parents))
    return path


def without_frames_before(path: Path, ticks: int) -> Path:
    """Say in an mp4's header, as editors do, that it begins so much later; no frame is removed."""
    data = bytearray(path.read_bytes())
    place = data.find(b"elst") + 4 + 4 + 4 + 4
    data[place : place + 4] = ticks.to_bytes(4, "big")
    path.write_bytes(data)
    return path


def _replaced(data: bytes, start: int, end: int, box: bytes, parents: tuple[bytes, ...]) -> bytes:
    """Another box from `start` to `end` of an mp4 whose index is last; the boxes around it get longer."""
    grown = bytearray(data[:start] + box + data[end:])
    for name in parents:
        place = grown.rfind(name, 0, start) - 4
        length = int.from_bytes(grown[place : place + 4], "big") + len(box) - (end - start)
        grown[place : place + 4] = length.to_bytes(4, "big")
    return bytes(grown)


def judo_folder(folder: Path) -> Path:
    """`folder/judo` in the flat layout: 16 blank frames of 854x480 and the 4 masks of tests/data/judo."""
    from PIL import Image

    images, masks = folder / "judo" / "images", folder / "judo" / "masks"
    images.mkdir(parents=True)
    for index in range(16):
        Image.new("RGB", (854, 480)).save(images / f"{index:05d}.jpg")
    shutil.copytree(Path(__file__).parent / "data" / "judo" / "masks", masks)
    return folder / "judo"

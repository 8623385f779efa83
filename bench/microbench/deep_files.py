"""One image as PNG, TIFF and DICOM of any depth, made from the formats' specifications."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray

__all__ = ["bare", "deep", "dicom", "png", "tiff"]


def deep(image: NDArray[np.uint8], bits: int) -> NDArray[np.uint16]:
    """An 8-bit image with `bits` bits."""
    values: NDArray[np.uint16] = np.rint(image * ((2**bits - 1) / 255)).astype(np.uint16)
    return values


def png(image: NDArray[Any], significant: int | None = None) -> bytes:
    """A PNG, with an sBIT chunk after its header where `significant` is given."""
    data = bytes(cv2.imencode(".png", image)[1])
    if significant is None:
        return data
    chunk = b"sBIT" + bytes([significant])
    return data[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def tiff(image: NDArray[Any], bits: int, **tags: int) -> bytes:
    """(H, W) or (H, W, C), samples packed without gaps; tags such as `t338=2` are added or replaced."""
    height, width, *rest = image.shape
    samples = rest[0] if rest else 1
    rows = image.reshape(height, -1).astype(">u2").view(np.uint8).reshape(height, -1, 2)
    packed = np.packbits(np.unpackbits(rows, axis=2)[:, :, 16 - bits :].reshape(height, -1), axis=1)
    stored = packed.tobytes() if bits != 16 else image.astype("<u2").tobytes()
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 2 if samples > 2 else 1, 273: 8, 277: samples}
    values |= {278: height, 279: len(stored), 284: 1} | {int(tag[1:]): value for tag, value in tags.items()}
    at = 8 + len(stored) + len(stored) % 2
    # More than two depths do not fit into their field.
    after = at + 2 + 12 * len(values) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 3, samples, after)
        if tag == 258 and samples > 2
        else struct.pack("<HHIHH", tag, 3, samples, value, value if samples == 2 else 0)
        if tag == 258
        else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in sorted(values.items())
    )
    directory = struct.pack("<H", len(values)) + entries + struct.pack("<I", 0)
    pixels = stored + bytes(len(stored) % 2)
    return (
        b"II*\0" + struct.pack("<I", at) + pixels + directory + struct.pack(f"<{samples}H", *[bits] * samples)
    )


def dicom(path: Path, image: NDArray[Any], bits: int, **elements: object) -> Path:
    """A gray DICOM file of `bits` stored bits."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = int(image.dtype.kind == "i")
    dataset.BitsAllocated = 8 * image.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelData = image.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def bare(path: Path, implicit: bool) -> Path:
    """The data set of a DICOM file, without preamble and file meta information, in place of the file."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta, dataset.preamble = pydicom.dataset.FileMetaDataset(), None
    dataset.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    return path

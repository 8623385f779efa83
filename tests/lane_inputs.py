"""What the lanes' commands read, made once with the pinned versions; and the commands."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pydicom
from clips import turned, with_durations, write_frames
from PIL import Image
from sam2_clips import moving_shapes

__all__ = ["COMMANDS", "filled_in", "make_inputs"]

TESTS = Path(__file__).parent
XRAYS = TESTS / "data" / "montgomery" / "images"
RECORDS = TESTS.parent / "bench" / "results"

_SHAPES = "--repo {repo} --model sam2 --point 30,60 --box 140,20,176,50#2"
_REPORT = "seg-bench report {records}/table_montgomery.json {records}/sam_montgomery.json --out {out}/report"
_TUNED = "--clahe --closing 3 --opening 2 --remove-small 64 --keep-largest 2 --tile"

COMMANDS = {
    "segment": "seg-run segment {inputs}/xrays --repo {repo} --model unet_lung --out {out} --batch 2",
    "segment with every step": "seg-run segment {xray} --repo {repo} --model unet_lung --out {out} --crf "
    + _TUNED,
    # OpenCV 5 writes in another typeface, so that overlays with names differ.
    "instances": "seg-run instances {inputs}/nuclei --repo {repo} --model maskrcnn_nuclei --no-overlay "
    "--out {out}",
    "sam": "seg-run sam {xray} --repo {repo} --model sam_tiny --box 45,55,245,368 --box 278,56,480,353 "
    "--out {out} --json",
    "everything": "seg-run everything {xray} --repo {repo} --model sam_tiny --points-per-side 6 "
    "--pred-iou-thresh 0.5 --stability-score-thresh 0.8 --min-area 64 --out {out}",
    "track an mp4": f"seg-run track {{inputs}}/shapes.mp4 --out {{out}}/out.mp4 --masks png {_SHAPES}",
    "track an avi": f"seg-run track {{inputs}}/shapes.avi --out {{out}}/out.mp4 --masks rle {_SHAPES}",
    "track a video of a phone": "seg-run track {inputs}/phone.mp4 --out {out}/out.mp4 --masks rle "
    "--repo {repo} --model sam2 --point 60,30",
    "track a folder": f"seg-run track {{inputs}}/frames --out {{out}}/out.mp4 --masks png {_SHAPES}",
    **{f"report as {name}": f"{_REPORT}.{name}" for name in ("md", "json", "csv", "html")},
    "report in plain text": f"{_REPORT}.txt --format terminal",
}
"""Words between spaces; each writes into {out} alone."""


def filled_in(command: str, inputs: Path, repo: Path, out: Path) -> list[str]:
    """The words of a command of `COMMANDS`."""
    places: Mapping[str, object] = {
        "inputs": inputs,
        "repo": repo,
        "out": out,
        "records": RECORDS,
        "xray": min(XRAYS.iterdir()),
    }
    return [word.format_map(places) for word in command.split()]


def make_inputs(folder: Path) -> None:
    """Images of every kind that is read, cells, and a clip as a file of each container and as a folder."""
    _images(folder / "xrays")
    (folder / "nuclei").mkdir()
    for image in sorted((TESTS / "data" / "nuclei" / "images").iterdir())[:2]:
        shutil.copy(image, folder / "nuclei")
    shapes = list(moving_shapes(6))
    write_frames(folder / "shapes.mp4", shapes)
    write_frames(folder / "shapes.avi", shapes, codec="MJPG")
    phone = Path(shutil.copy(folder / "shapes.mp4", folder / "phone.mp4"))
    turned(with_durations(phone, [512, 1024, 256, 5120, 512, 2560]), 90)
    (folder / "frames").mkdir()
    for index, frame in enumerate(shapes):
        Image.fromarray(frame).save(folder / "frames" / f"{index:05d}.jpg", quality=95)


def _images(folder: Path) -> None:
    folder.mkdir()
    first, second, third, *_ = sorted(XRAYS.iterdir())
    shutil.copy(first, folder)
    pixels = cv2.imread(str(second), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "deep.tif"), pixels.astype(np.uint16) * 257)
    _write_dicom(folder / "window.dcm", pixels.astype(np.uint16) * 16)
    photograph = Image.open(third)
    exif = photograph.getexif()
    exif[0x0112] = 6  # turned clockwise
    photograph.rotate(90).save(folder / "phone.jpg", quality=95, exif=exif)


def _write_dicom(path: Path, pixels: np.ndarray) -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)

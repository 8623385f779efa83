"""Segments image files one after the other into a folder of masks, overlays and one results file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.bit_depth import check_bit_depth
from seg_runtime.files.dicom_seg import check_highdicom
from seg_runtime.files.dicom_seg import dicom_seg as dicom_seg_bytes
from seg_runtime.files.doubts import class_doubts, input_doubts
from seg_runtime.files.each import ReadImage, each_file
from seg_runtime.files.images import read_bytes, replace_file, write_mask, write_png
from seg_runtime.files.overlay import draw_overlay, shown_channels
from seg_runtime.files.results import RESULTS_FILE, FileResult, check_out
from seg_runtime.files.stacks import (
    LoadedStack,
    StackResult,
    class_areas,
    load_image_or_stack,
    stream_with_stacks,
    write_stack,
)
from seg_runtime.preprocess import check_batch_size
from seg_runtime.semantic import SemanticResult, SemanticSegmenter

__all__ = ["RESULTS_FILE", "FileResult", "segment_files"]


def segment_files(
    segmenter: SemanticSegmenter,
    paths: Sequence[Path],
    out: str | Path,
    *,
    gray: bool = False,
    bit_depth: int | None = None,
    overlay: bool = True,
    batch_size: int = 1,
    dicom_seg: bool = False,
) -> Iterator[FileResult]:
    """Segment image files, writing as it goes and holding one batch of images at a time.

    `out` receives `<name>_mask.png`, `<name>_overlay.png` and, once the iteration ends for whatever
    reason, `results.jsonl` with a line per file. Files of the same name get `_2`, `_3`, ... in the
    order of `paths`. Nothing is created before the first image was segmented, and a file that is
    there is complete. Of a NIfTI file, a slice or a stack of them, there is `<name>_mask.nii.gz` instead,
    and no overlay.

    Args:
        segmenter: what to run.
        paths: image files, from `seg_runtime.files.images.list_images`.
        out: the folder to write to; made when missing.
        gray: convert colour images for a model of one channel.
        bit_depth: how many bits of 16-bit pixels count, whatever the files state.
        overlay: write overlays too.
        batch_size: how many images to run together.
        dicom_seg: also write `<name>_seg.dcm`, the mask as a DICOM SEG that refers to the image; images that
            are no DICOM are left out.

    Yields:
        One `FileResult` per path, in order; a file that fails in whatever way is one with an error.

    Raises:
        BadInputError: `out` cannot be written to or holds one of the images, the batch is too large, no
            such bit depth, or `gray` for a model of several channels.
        MissingExtraError: `dicom_seg` without highdicom.
        ServerError: as from `Session.infer`.
    """
    out, channels = Path(out), segmenter.spec.channels
    if gray and channels != 1:
        raise BadInputError(
            f"--gray (gray=True) has no effect: model '{segmenter.spec.name}' takes {channels} channels; "
            "leave it out"
        )
    check_out(out, paths)
    if dicom_seg:
        check_highdicom()
    check_bit_depth(bit_depth)
    check_batch_size(segmenter.spec, batch_size)
    return each_file(
        paths,
        out,
        read=lambda path: load_image_or_stack(path, channels, gray=gray, bit_depth=bit_depth),
        stream=lambda images: stream_with_stacks(segmenter, images, batch_size),
        write=lambda read, result: _write(segmenter, read, result, out, overlay, dicom_seg),
        batch_size=batch_size,
    )


def _write(
    segmenter: SemanticSegmenter,
    read: ReadImage,
    result: SemanticResult | StackResult,
    out: Path,
    overlay: bool,
    as_dicom: bool,
) -> FileResult:
    seg_path = out / f"{read.name}_seg.dcm" if as_dicom else None
    segmentation = _dicom_seg(segmenter, read.path, result) if seg_path else b""
    if isinstance(result, StackResult):
        assert isinstance(read.loaded, LoadedStack)
        return write_stack(segmenter, read, read.loaded, result, out)
    mask_path = out / f"{read.name}_mask.png"
    overlay_path = out / f"{read.name}_overlay.png" if overlay else None
    one_class = len(result.probabilities) == 1
    write_mask(mask_path, result.mask, binary=one_class)
    if overlay_path is not None:
        write_png(overlay_path, draw_overlay(shown_channels(read.image), result.mask))
    if seg_path is not None:
        replace_file(seg_path, segmentation)
    areas = class_areas(segmenter.spec, result.mask, len(result.probabilities))
    size_hw = (result.mask.shape[0], result.mask.shape[1])
    return FileResult(
        read.path,
        size_hw=size_hw,
        mask_path=mask_path,
        overlay_path=overlay_path,
        dicom_seg_path=seg_path,
        area_px=areas,
        timings_ms=dict(result.timings_ms),
        engine=segmenter.engine,
        read=read.loaded.depth.to_json(),
        warnings=(
            *read.loaded.warnings,
            *input_doubts(segmenter.spec, read.image, segmenter.clahe),
            *class_doubts(list(areas), list(areas.values()), size_hw),
        ),
    )


def _dicom_seg(segmenter: SemanticSegmenter, path: Path, result: SemanticResult | StackResult) -> bytes:
    if isinstance(result, StackResult):
        raise BadImageError(
            f"image '{path}': it is NIfTI, and a DICOM SEG refers to DICOM: leave --dicom-seg out"
        )
    spec, names = segmenter.spec, list(class_areas(segmenter.spec, result.mask, len(result.probabilities)))
    found = names if len(names) == 1 else names[1:]
    try:
        return dicom_seg_bytes(read_bytes(path), result.mask, found, spec.name, spec.version)
    except BadImageError as error:
        raise BadImageError(f"image '{path}': {error}") from error

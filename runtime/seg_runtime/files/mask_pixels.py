"""Pixels of mask files exactly as they are stored: no scaling, no window, no palette applied.

An image may be scaled to 8 bits and loses nothing that one can see; a mask of 0 and 1 would become black.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError
from seg_runtime.files.bands import NUMPY_SIGNATURE, read_bands
from seg_runtime.files.image_header import complete_header
from seg_runtime.files.images import MAX_PIXELS, read_bytes
from seg_runtime.files.limits import check_inflation
from seg_runtime.files.nifti import nifti_values, one_slice, split_slice
from seg_runtime.files.nifti_header import is_nifti
from seg_runtime.files.tiff_tags import tiff_pages

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MaskPixels", "read_mask_pixels"]

_FORMATS = ("PNG", "TIFF", "JPEG", "BMP")
_WIDE_PNG_MODES = (2, 4, 6)
"""PNG's colour types of several channels, of which Pillow keeps the upper 8 of 16 bits."""
_TIFF_BITS = 258
"""The tag BitsPerSample."""
_JPEG_TINT = 24
"""How far the channels of a gray picture come apart in a JPEG."""
_OPAQUE_BLACK_AND_WHITE = {(0, 0, 0), (255, 255, 255)}


@dataclass(frozen=True)
class MaskPixels:
    """What a mask file holds.

    Attributes:
        values: (H, W), integer or bool or float, as stored.
        indexed: they are numbers of a palette.
        lossy: they come from a JPEG, which changes values along every edge.
        source: where they come from, for people: "gray values", "palette indices", "alpha", ...
    """

    values: NDArray[Any]
    indexed: bool = False
    lossy: bool = False
    source: str = "gray values"


def read_mask_pixels(path: Path) -> MaskPixels:
    """Decode a mask: PNG, TIFF, BMP, JPEG, `.npy`, or a slice of a NIfTI file.

    Of colour with alpha, the shape is taken from where it is: in the alpha when the colours say nothing, in
    the colours when the alpha says nothing. Two colours of which one is black are a mask of the other one.

    Raises:
        BadImageError: it cannot be read, or it has colours that are no mask. The message leaves out the
            file's name: the caller knows it.
    """
    file, slice_number = split_slice(path)
    data = read_bytes(file)
    if data.startswith(NUMPY_SIGNATURE):
        return _from_numpy(data)
    if is_nifti(data):
        return MaskPixels(one_slice(_last_values(data), slice_number), source="values of the slice")
    header = complete_header(data)
    if header is not None and header.kind == "dicom":
        raise BadImageError("it is a DICOM file: save the mask as PNG, TIFF or .npy")
    if header is not None and header.size_hw[0] * header.size_hw[1] > MAX_PIXELS:
        raise BadImageError(f"it has {header.size_hw[1]}x{header.size_hw[0]} pixels: cut it into tiles first")
    if header is not None:
        check_inflation(header.size_hw, header.pixel_bytes, len(data))
    if data.startswith(b"\x89PNG") and data[24] == 16 and data[25] in _WIDE_PNG_MODES:
        return _from_channels(_wide_channels(data), lossy=False)
    return _from_pillow(data)


@lru_cache(maxsize=1)
def _last_values(data: bytes) -> NDArray[Any]:
    return nifti_values(data, MAX_PIXELS)


def _from_numpy(data: bytes) -> MaskPixels:
    bands = read_bands(data, MAX_PIXELS)
    if bands.shape[2] != 1:
        raise BadImageError(f"its array has {bands.shape[2]} bands: a mask is an array (H, W)")
    return MaskPixels(bands[..., 0], source="array values")


def _wide_channels(data: bytes) -> NDArray[Any]:
    """(H, W, C) uint16 RGB or RGBA."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise BadImageError("it cannot be decoded: save it again as an 8-bit PNG")
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return np.asarray(pixels[..., order])


def _from_pillow(data: bytes) -> MaskPixels:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # Warnings are about tags that do not change a mask, and about sizes that were checked.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=_FORMATS) as image:
                # Pillow counts all of its pages, which may be a million.
                if image.format == "TIFF" and len(list(islice(tiff_pages(data), 2))) > 1:
                    raise BadImageError("the TIFF file has several pages: save the one that is the mask")
                shrink = _scaled_by(image)
                upright = ImageOps.exif_transpose(image)
                upright.load()
                lossy = image.format == "JPEG"
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("it is no PNG, TIFF, BMP, JPEG or .npy file, whatever its name says") from error
    except Image.DecompressionBombError as error:
        raise BadImageError("it is too large to be a mask: cut it into tiles first") from error
    except Exception as error:
        raise BadImageError(
            "it cannot be decoded, it is damaged or of a rare kind: save it as PNG"
        ) from error
    if upright.mode in ("P", "PA"):
        return _from_palette(upright)
    if len(upright.getbands()) == 1:
        return MaskPixels(np.asarray(upright) // shrink if shrink > 1 else np.asarray(upright), lossy=lossy)
    if upright.mode not in ("RGB", "RGBA", "LA"):
        raise BadImageError(f"its colours are {upright.mode}: save the mask as a gray or an indexed PNG")
    return _from_channels(np.asarray(upright), lossy)


def _scaled_by(image: Image) -> int:
    """What Pillow multiplies gray values of 2 and 4 bits by, to fill 8."""
    from PIL.ImageFile import ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

    bits = 8
    if image.mode == "L" and isinstance(image, TiffImageFile):
        bits = int(image.tag_v2.get(_TIFF_BITS, (8,))[0])
    elif image.mode == "L" and image.format == "PNG" and isinstance(image, ImageFile):
        mode = image.tile[0].args
        bits = int(mode[2:]) if isinstance(mode, str) and mode.startswith("L;") else 8
    return {2: 85, 4: 17}.get(bits, 1)


def _from_palette(image: Image) -> MaskPixels:
    """Indices count, as in DAVIS and Pascal VOC, unless the palette says that 0 is not the background."""
    indices = np.asarray(image.getchannel(0) if image.mode == "PA" else image, dtype=np.uint8)
    flat = image.getpalette("RGB") or []
    palette = [tuple(flat[at : at + 3]) for at in range(0, len(flat), 3)]
    used = [int(index) for index in np.flatnonzero(np.bincount(indices.ravel(), minlength=256))]
    colours = {index: palette[index] if index < len(palette) else (0, 0, 0) for index in used}
    if len(used) > 1 and set(colours.values()) == _OPAQUE_BLACK_AND_WHITE:
        white = [index for index, colour in colours.items() if colour == (255, 255, 255)]
        return MaskPixels(np.isin(indices, white).astype(np.uint8) * np.uint8(255), source="black and white")
    blacks = [index for index, colour in colours.items() if colour == (0, 0, 0) and index]
    if blacks and colours.get(0, (0, 0, 0)) != (0, 0, 0):
        raise BadImageError(
            f"its palette shows index 0 in colour and index {blacks[0]} in black, so which is the background "
            "cannot be known: save the classes with 0 for the background"
        )
    return MaskPixels(indices, indexed=True, source="palette indices")


def _from_channels(pixels: NDArray[Any], lossy: bool) -> MaskPixels:
    """Of (H, W, 2) gray and alpha, (H, W, 3) RGB or (H, W, 4) RGBA."""
    has_alpha = pixels.shape[2] in (2, 4)
    if not has_alpha:
        return _from_colours(pixels, lossy)
    colours, alpha = pixels[..., :-1], pixels[..., -1]
    if alpha.min() == alpha.max() > 0:
        return _from_colours(colours, lossy)
    visible = colours[alpha > 0]
    if not len(visible) or (visible == visible[0]).all():
        if alpha.max() == 0 and (colours != colours[0, 0]).any():
            raise BadImageError(
                "it is transparent everywhere and has a shape in its colours: save it as gray"
            )
        return MaskPixels(alpha, source="alpha")
    shown = _from_colours(colours, lossy)
    half = np.iinfo(alpha.dtype).max // 2
    shape = np.asarray(shown.values)
    if any(np.array_equal(alpha > half, shape > level) for level in (0, half)):
        return MaskPixels(alpha, source="alpha")
    raise BadImageError("its alpha and its colours show different shapes: save the one that is meant as gray")


def _from_colours(colours: NDArray[Any], lossy: bool) -> MaskPixels:
    """Of (H, W, 1) gray or (H, W, 3) RGB: gray values, or one colour on black."""
    # Channel by channel: NumPy takes long over an axis of 3, and memory for what has all channels.
    first, *others = (colours[..., channel] for channel in range(colours.shape[2]))
    if all(np.array_equal(first, other) for other in others):
        return MaskPixels(np.ascontiguousarray(first), lossy=lossy)
    green, blue = others
    if lossy:
        highest = np.maximum(np.maximum(first, green), blue)
        spread = highest - np.minimum(np.minimum(first, green), blue)
        if spread.max() <= _JPEG_TINT:
            return MaskPixels(np.ascontiguousarray(colours[..., 1]), lossy=True)
    else:
        inked = (first | green | blue) > 0
        ink = colours[np.unravel_index(inked.argmax(), inked.shape)]
        same = (
            ((channel == value) | ~inked).all()
            for channel, value in zip((first, green, blue), ink, strict=True)
        )
        if not inked.all() and all(same):
            return MaskPixels(inked, source="one colour on black")
    raise BadImageError(
        "it is in colour: save the number of each pixel's class as a gray or an indexed PNG, with 0 for the "
        "background"
    )

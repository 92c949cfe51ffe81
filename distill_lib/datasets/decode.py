"""Encoded images to pixels: whole, as random crops, or as evaluation shows them.

Crops are what `views.render` shows of the same box, to within the rounding to uint8. Unlike TensorFlow, images are
turned upright as Exif says. JPEG is decoded by libjpeg-turbo (simplejpeg) with the fast integer inverse DCT, which is
TensorFlow's default and so what the paper's networks saw; Pillow reads CMYK, all else and Exif. OpenCV resamples.
"""

import contextlib
import functools
import io
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class ImageError(ValueError):
    """An image that cannot be decoded."""


Encoded = bytes | np.ndarray | ImageError
"""The bytes of a file, or pixels uint8 (h, w) or (h, w, c), or why the file cannot be read."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # of Pillow's, which would start Ghostscript for EPS
PIXELS = 89_478_485  # of the largest image that is decoded: a quarter GiB in colour; it is Pillow's limit too
_ORIENTATION = 0x0112
_END_OF_IMAGE, _START_OF_SCAN, _BASELINE = b"\xff\xd9", 0xFFDA, (0xC0, 0xC1)  # JPEG markers (ITU-T T.81, annex B)
_CONTEXT = 2  # rows below a row that smooth upsampling of colour looks at


class Look(NamedTuple):
    """One crop of an image: box (top, left, height, width, fractions of the upright image), mirrored or not, side."""

    box: Sequence[float] | np.ndarray
    flip: bool
    size: int


def sides(image: Encoded) -> tuple[int, int]:
    """Height and width of the upright image, in pixels; reads no more than the header, and raises ImageError."""
    if isinstance(image, np.ndarray):
        return image.shape[:2]
    if isinstance(image, ImageError):
        raise image
    if header := _header(image):
        height, width, orientation = header.height, header.width, header.orientation
    else:
        with _opened(image) as picture:
            height, width, orientation = picture.height, picture.width, _orientation(picture)
    return (width, height) if orientation > 4 else (height, width)


def decode(image: Encoded, channels: int = 3) -> np.ndarray:
    """Decodes a whole image, uint8 (h, w, 1 or 3), upright and without transparency; raises ImageError."""
    if isinstance(image, np.ndarray):
        return _with_channels(image, channels)
    if isinstance(image, ImageError):
        raise image
    if not (header := _header(image)):
        return _by_pillow(image, channels)
    pixels = _by_simplejpeg(image, header, "RGB" if channels == 3 else "GRAY")
    turned = np.rot90(pixels, (0, 0, 2, 2, 3, 3, 1, 1)[header.orientation - 1])
    return np.ascontiguousarray(turned[:, ::-1] if header.orientation in (2, 4, 5, 7) else turned)


def crops(image: Encoded, looks: Sequence[Look], channels: int = 3) -> tuple[np.ndarray, ...]:
    """Decodes an image once, as far as needed: a crop of it for each look, uint8 (size, size, channels)."""
    if isinstance(image, bytes) and (header := _header(image)) and header.orientation == 1:
        bottom = math.ceil(max(float(look.box[0]) + float(look.box[2]) for look in looks) * header.height) + 1
        pixels = _by_simplejpeg(image, header, "RGBX" if channels == 3 else "GRAY", bottom)
        height, width = header.height, header.width
    else:
        pixels = decode(image, channels)
        height, width = pixels.shape[:2]
        if channels == 3:  # OpenCV resamples one or four bytes a pixel faster than three
            pixels = _opencv().cvtColor(pixels, _opencv().COLOR_RGB2RGBA)
    try:
        return tuple(_crop(pixels, height, width, look) for look in looks)
    except _opencv().error as error:
        raise ImageError(f"{height} x {width} pixels are too many for OpenCV") from error


def evaluation(image: Encoded, small: int, size: int, channels: int = 3) -> np.ndarray:
    """What evaluation shows: the central square of the image resized by area to a shorter side of `small` pixels."""
    whole = decode(image, channels)
    scale = small / min(whole.shape[:2])
    height, width = (max(small, round(side * scale)) for side in whole.shape[:2])
    top, left = (height - size) // 2, (width - size) // 2
    if scale <= 1:
        resized = _opencv().resize(whole, (width, height), interpolation=_opencv().INTER_AREA)
        return np.ascontiguousarray(resized.reshape(height, width, channels)[top : top + size, left : left + size])
    down = np.arange(top, top + size + 1) * (whole.shape[0] / height)
    across = np.arange(left, left + size + 1) * (whole.shape[1] / width)
    (first, last), (begin, end) = ((int(edges[0]), math.ceil(edges[-1])) for edges in (down, across))
    means = _means(whole[first:last, begin:end], down - first)  # others are not reached: an image may be very oblong
    means = _means(means.swapaxes(0, 1), across - begin).swapaxes(0, 1)
    return np.asarray(np.rint(means).clip(0, 255), np.uint8)


def fitted(image: Encoded, channels: int, canvas: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Fits an image into the top left corner of a black square canvas, if there is one; gives its sides there, too."""
    from PIL import Image

    pixels = decode(image, channels)
    height, width = pixels.shape[:2]
    if canvas is None or (height, width) == (canvas, canvas):
        return pixels, (height, width)
    scale = canvas / max(height, width)
    height, width = (max(1, round(side * scale)) for side in (height, width))
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, channels)
    return np.pad(resized, ((0, canvas - height), (0, canvas - width), (0, 0))), (height, width)


def _means(pixels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means along the first axis (n, ...) between each two edges, in pixels: differences of the sums up to them."""
    sums = np.concatenate([np.zeros((1, *pixels.shape[1:])), pixels.cumsum(axis=0, dtype=np.float64)])
    whole = np.minimum(edges.astype(int), len(pixels) - 1)
    parts, widths = (each.reshape(-1, *[1] * (pixels.ndim - 1)) for each in (edges - whole, np.diff(edges)))
    return np.asarray(np.diff(sums[whole] + parts * pixels[whole], axis=0) / widths)


def _crop(pixels: np.ndarray, height: int, width: int, look: Look) -> np.ndarray:
    cv2, size = _opencv(), look.size
    top, left, high, wide = map(float, look.box)
    (y, down), (x, across) = (top * height, high * height), (left * width, wide * width)
    if min(down, across) >= size:  # no pixel's centre lies beyond those of the crop's own pixels
        slope_x, slope_y = across / size, down / size
        matrix = np.array([[slope_x, 0.0, x + slope_x / 2 - 0.5], [0.0, slope_y, y + slope_y / 2 - 0.5]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(pixels, matrix, (size, size), None, how, cv2.BORDER_REPLICATE)
    else:
        # where new pixels lie between the old ones of an axis, as in `views.render`: within the crop
        axes = [
            np.clip(start + (np.arange(size) + 0.5) * (extent / size) - 0.5, start, start + max(extent - 1.0, 0.0))
            for start, extent in ((x, across), (y, down))
        ]
        grid = [np.asarray(each, np.float32) for each in np.meshgrid(*axes)]
        crop = cv2.remap(pixels, *grid, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    crop = cv2.flip(crop, 1) if look.flip else crop
    return np.asarray(crop[:, :, None] if crop.ndim == 2 else cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB))


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels[:, :, :1], 3, axis=2)
    grey: np.ndarray = _opencv().cvtColor(np.ascontiguousarray(pixels), _opencv().COLOR_RGB2GRAY)
    return grey[:, :, None]


class _Header(NamedTuple):
    height: int
    width: int
    components: int  # 1 (grey) or 3
    orientation: int  # Exif's, 1 (upright) to 8


def _header(data: bytes) -> _Header | None:
    """None for CMYK, which Pillow knows how to turn into colours, and for what is no JPEG; raises ImageError."""
    import simplejpeg

    if data[:3] != b"\xff\xd8\xff":
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # it looks up what a damaged header says
        raise ImageError(f"damaged JPEG: {error}") from error
    _check_size(height, width)
    orientation = 1
    if b"Exif\0\0" in data:
        with contextlib.suppress(ImageError), _opened(data) as picture:
            orientation = _orientation(picture)
    return None if colours in ("CMYK", "YCCK") else _Header(height, width, 1 if colours == "Gray" else 3, orientation)


def _by_simplejpeg(data: bytes, header: _Header, colour: str, bottom: int | None = None) -> np.ndarray:
    """Decodes a JPEG, as TensorFlow with what can be made of damage within the scan, but not if it ends too early.

    Rows from `bottom` on may be missing: the height in the header is lowered, and the decoder stops there.
    """
    import simplejpeg

    parts = header.components
    frame = max(data.find(struct.pack(">HBHHB", 8 + 3 * parts, 8, header.height, header.width, parts)) - 2, 0)
    one_scan = struct.pack(">HHB", _START_OF_SCAN, 6 + 2 * parts, parts)  # rows are stored from top to bottom
    complete = data.rfind(_END_OF_IMAGE, frame) >= 0  # no chance hits within a scan
    if not complete:  # then the decoder has to find all of the rest without a warning
        data += _END_OF_IMAGE
    elif bottom and bottom + _CONTEXT < header.height and data[frame + 1] in _BASELINE and one_scan in data:
        data = b"".join((data[: frame + 5], struct.pack(">H", bottom + _CONTEXT), data[frame + 7 :]))
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colorspace=colour, fastdct=True, strict=not complete)
    except ValueError as error:
        raise ImageError(f"damaged JPEG: {error}") from error
    return pixels


def _check_size(height: int, width: int) -> None:
    if height * width > PIXELS:  # which few bytes can declare and no memory holds
        raise ImageError(f"{height:,} x {width:,} pixels are more than {PIXELS:,}: make it smaller")


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """A Pillow image; what Pillow stumbles over, also while it is used, becomes an ImageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_size(picture.height, picture.width)
            yield picture
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # its message holds an address, which differs from process to process
        raise ImageError(f"no image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's readers raise whatever their formats stumble over
        raise ImageError(str(error) or type(error).__name__) from error


def _orientation(picture: Any) -> int:
    value = picture.getexif().get(_ORIENTATION)
    return value if value in range(1, 9) else 1  # upright where Exif says nothing that makes sense


def _by_pillow(data: bytes, channels: int) -> np.ndarray:
    from PIL import ImageOps

    with _opened(data) as picture:
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")):  # grey of 16 bits, of which libpng too drops the lower 8, or of floats
            deep = np.asarray(picture)
            grey = np.rint(deep.clip(0, 255)) if deep.dtype.kind == "f" else deep.clip(0, 2**16 - 1) >> 8
            return _with_channels(grey.astype(np.uint8), channels)
        if picture.mode in ("P", "PA"):  # its transparency may be a table, which RGB alone does not know
            picture = picture.convert("RGBA")
        pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


@functools.cache
def _opencv() -> Any:
    import cv2

    cv2.setNumThreads(1)  # images of a batch are decoded side by side: threads within one only get in the way
    return cv2

"""JPEG bytes (ITU-T T.81, annex B) to pixels: the header, and decoding of no more rows than asked for.

Decoding is by libjpeg-turbo (simplejpeg) with the fast integer inverse DCT, TensorFlow's default and so what the
paper's networks saw. To save the rows below a crop, the height in the header is lowered: the decoder stops there.
"""

import struct
from typing import NamedTuple

import numpy as np

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_BASELINE = (0xC0, 0xC1)  # one pass from top to bottom, unlike progressive files
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the other three are no frame headers
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_CONTEXT = 2  # rows below a row that smooth upsampling of colour looks at
PIXELS = 89_478_485  # of the largest image that is decoded: a quarter GiB in colour; it is Pillow's limit too


class ImageError(ValueError):
    """An image that cannot be decoded."""


def check_size(height: int, width: int) -> None:
    """Raises ImageError for more than `PIXELS`, which few bytes can declare and no memory holds."""
    if height * width > PIXELS:
        raise ImageError(f"{height:,} x {width:,} pixels are more than {PIXELS:,}: make it smaller")


class Header(NamedTuple):
    """What the markers before the first scan say."""

    height: int  # in pixels, as stored
    width: int
    components: int  # 1 (grey), 3 (colour) or 4 (CMYK)
    orientation: int  # of Exif, 1 to 8; 1 is upright
    frame: int  # offset of the frame header's height in the bytes
    scan: int  # offset of the first scan
    one_pass: bool  # whether rows are stored from top to bottom in a single baseline scan


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG file does."""
    return data[:3] == b"\xff\xd8\xff"


def header(data: bytes) -> Header:
    """Reads the header; raises ImageError where it is damaged or declares more than `PIXELS`."""
    place, orientation, frame = 2, 1, None
    try:
        while True:
            if data[place] != 0xFF:
                raise ImageError("JPEG with a damaged header")
            marker = data[place + 1]
            if marker == 0xFF or marker in _BARE:  # padding
                place += 1 if marker == 0xFF else 2
                continue
            (length,) = struct.unpack_from(">H", data, place + 2)
            if marker in _FRAMES:
                frame = (marker, place + 5, *struct.unpack_from(">HHB", data, place + 5))
            elif marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
                orientation = _orientation(data[place + 10 : place + 2 + length])
            elif marker == _START_OF_SCAN:
                break
            place += 2 + length
        if frame is None or not frame[2] or not frame[3]:
            raise ImageError("JPEG without a size")
        kind, offset, height, width, components = frame
        check_size(height, width)
        one_pass = kind in _BASELINE and data[place + 4] == components
    except (IndexError, struct.error):
        raise ImageError("JPEG that ends within its header") from None
    return Header(height, width, components, orientation, offset, place, one_pass)


def _orientation(exif: bytes) -> int:
    """Orientation out of an Exif block, 1 where it says nothing that makes sense."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (h, w, colours), turned as Exif says; a view of the same memory."""
    turned = np.rot90(pixels, (0, 0, 2, 2, 3, 3, 1, 1)[orientation - 1])
    return turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned


def decode(data: bytes, header: Header, *, colour: str, bottom: int | None = None) -> np.ndarray:
    """Decodes a JPEG as it is stored, uint8 (rows, width, colours), as "RGB", "RGBX" or "GRAY"; raises ImageError.

    As TensorFlow, it takes what the decoder can make of damage within the scan, but not a file that ends too early.
    Rows from `bottom` on may be missing.
    """
    import simplejpeg

    height, complete = header.height, data.rfind(_END_OF_IMAGE, header.scan) >= 0  # no chance hits within a scan
    if not complete:  # then the decoder has to find all of the rest without a warning
        data += _END_OF_IMAGE
    elif bottom is not None and header.one_pass:
        height = min(height, bottom + _CONTEXT)
    if height < header.height:
        data = b"".join((data[: header.frame], struct.pack(">H", height), data[header.frame + 2 :]))
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colorspace=colour, fastdct=True, strict=not complete)
    except ValueError as error:
        raise ImageError(f"damaged JPEG: {error}") from error
    return pixels

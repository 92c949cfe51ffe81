"""JPEG bytes to pixels: the header, and decoding of no more rows and no more resolution than asked for.

Decoding is by libjpeg-turbo (simplejpeg), with the accurate inverse DCT; TensorFlow's default is the fast one, whose
grey levels differ from these by 1.3 on average. Entropy decoding dominates and has to start at the top, so what a crop
can save are the rows below it: the height in the header is lowered, and the decoder stops there.

References:
    ITU-T T.81 (JPEG), annex B (markers); CIPA DC-008 (Exif), tag 0x0112 (orientation).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_BASELINE = (0xC0, 0xC1)  # one pass from top to bottom, unlike progressive files
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the other three are no frame headers
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_CONTEXT = 2  # rows below a row that smooth upsampling of colour looks at


@dataclass(frozen=True)
class Header:
    """What the markers before the first scan say.

    Attributes:
        height, width: in pixels, as stored.
        components: 1 (grey), 3 (colour) or 4 (CMYK).
        orientation: of Exif, 1 to 8; 1 is upright.
        frame: offset of the frame header's height in the bytes.
        scan: offset of the first scan.
        one_pass: whether rows are stored from top to bottom in a single baseline scan.
    """

    height: int
    width: int
    components: int
    orientation: int
    frame: int
    scan: int
    one_pass: bool


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG file does."""
    return data[:3] == b"\xff\xd8\xff"


def header(data: bytes) -> Header:
    """Reads the header; raises ValueError where it is damaged."""
    place, orientation, frame = 2, 1, None
    try:
        while True:
            if data[place] != 0xFF:
                raise ValueError("JPEG with a damaged header")
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
            raise ValueError("JPEG without a size")
        kind, offset, height, width, components = frame
        one_pass = kind in _BASELINE and data[place + 4] == components
    except (IndexError, struct.error):
        raise ValueError("JPEG that ends within its header") from None
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


def decode(data: bytes, found: Header, *, colour: str, bottom: int | None = None, shrink: int = 1) -> np.ndarray:
    """Decodes a grey or colour JPEG, as it is stored (not turned upright).

    As TensorFlow, it takes what the decoder can make of damage within the scan, but not a file that ends too early.

    Args:
        data: the whole file.
        found: its header.
        colour: "RGB", "RGBX" (four bytes a pixel) or "GRAY".
        bottom: rows from here on are not needed; None for all rows.
        shrink: 1, 2, 4 or 8: the scaled inverse DCT makes each side that many times shorter.

    Returns:
        uint8 (rows, width / shrink, colours), both sides rounded up; rows at and below `bottom` may be missing.

    Raises:
        ValueError: the decoder cannot make pixels of it.
    """
    import simplejpeg

    height, complete = found.height, data.rfind(_END_OF_IMAGE, found.scan) >= 0  # no chance hits within a scan
    if not complete:  # then the decoder has to find all of the rest without a warning
        data += _END_OF_IMAGE
    elif bottom is not None and found.one_pass:
        height = min(height, bottom + _CONTEXT * shrink)
    if height < found.height:
        data = b"".join((data[: found.frame], struct.pack(">H", height), data[found.frame + 2 :]))
    least = {"min_height": -(-height // shrink), "min_width": -(-found.width // shrink)} if shrink > 1 else {}
    return simplejpeg.decode_jpeg(data, colorspace=colour, strict=not complete, **least)

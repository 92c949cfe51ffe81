"""Files that are no pictures although they are called so: none hangs, eats the memory or ends a run that goes on."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_files import fill
from PIL import Image

from distill_lib import datasets, recipes
from distill_lib.datasets import decode, image_folder
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import splits, stream


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def declared(kind: str, height: int, width: int) -> bytes:
    """A file of a few hundred bytes whose header says that the image is so large."""
    data = encoded(np.zeros((8, 8, 3), np.uint8), kind)
    if kind == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]
    if kind == "BMP":
        return data[:18] + struct.pack("<ii", width, height) + data[26:]
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]  # of a PNG, with its checksum
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def outside(path: Path) -> None:
    """A link to a picture beside the folder."""
    picture = path.parents[2] / "outside.png"
    picture.write_bytes(encoded(np.zeros((6, 9, 3), np.uint8), "PNG"))
    path.symlink_to(picture)


def huge(path: Path) -> None:
    """A file of a size that no picture has; nothing is stored of it."""
    with path.open("wb") as file:
        file.truncate(image_folder.FILE_BYTES + 1)


NOISE = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n"
ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a link out of the folder"),
    "link to nothing": (lambda path: path.symlink_to("absent.png"), "No such file"),
    "circle of links": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "link out of the folder": (outside, "a link out of the folder; `cp -rLl`"),
    "too many bytes": (huge, "bytes are more than"),
    "nothing in it": (lambda path: path.write_bytes(b""), "no image of a known format"),
    "cut": (lambda path: path.write_bytes(encoded(NOISE, "PNG")[:900]), "truncated"),
    "EPS": (lambda path: path.write_bytes(EPS), "no image of a known format"),
    "JPEG of 12 GiB": (lambda path: path.write_bytes(declared("JPEG", 65_500, 65_500)), "pixels are more than"),
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[datasets.Source, str]:
    """A folder whose first training picture is an odd file, and what is to be said of it."""
    root = fill(tmp_path / "set", 10)
    path = root / datasets.load(f"folder:{root}", "train").encoded(0).name
    path.unlink()
    make, reason = ODD[request.param]
    make(path)
    return datasets.load(f"folder:{root}", "train"), reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_an_odd_file_is_a_broken_image_whatever_is_wrong_with_it(
    odd: tuple[datasets.Source, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another image stands in for it, or the run stops with its name: as asked. In memory it is an error at once."""
    source, reason = odd
    recipe = recipes.get("pets", "fast", batch_size=len(source), resolution=8)
    bad: dict[int, str] = {}
    next(stream.batches(source, recipe, workers=0, bad=bad))
    assert list(bad) == [0] and reason in capsys.readouterr().err
    with pytest.raises(DistillError, match=reason):
        next(stream.batches(source, recipe, workers=0, on_bad_image="raise"))
    with pytest.raises(DistillError, match=rf"(?s)cannot be decoded \(.*{reason}.*replace or remove it"):
        source[0]
    assert datasets.digest(source.dataset.name) and datasets.fingerprint(source.dataset.name)
    evaluated = splits.Streamed(source, 1)
    assert len(list(evaluated.parts(1.0, [8], len(source)))) == 1 and evaluated.bad == {0}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("sides", [(65_500, 65_500), (1_370, 65_500)])
def test_one_limit_on_pixels_holds_for_all_formats(kind: str, sides: tuple[int, int]) -> None:
    """It is read from the header, before memory is taken."""
    data = declared(kind, *sides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for read in (decode.sides, decode.decode, lambda image: decode.evaluation(image, 256, 224)):
            with pytest.raises(
                decode.ImageError, match="pixels are more than 89,478,485: make it smaller|exceeds limit"
            ):
                read(data)


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1)])
def test_a_very_oblong_image_is_shown_without_enlarging_the_whole(shape: tuple[int, int]) -> None:
    """The whole, 224 pixels high, would have 22 million columns; only those of the central square are made."""
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 :, shape[1] // 2 :] = 200
    shown = decode.evaluation(encoded(image, "PNG"), 256, 224)
    assert shown.shape == (224, 224, 3) and shown.min() == 0 and shown.max() == 200


@pytest.mark.parametrize("place", [".", "roses", "roses/deep"])
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures would be missing unseen, and with them steps of the training."""
    (fill(tmp_path) / "roses" / "deep").mkdir()
    locked, scandir = str(tmp_path / place), os.scandir

    def refuse(path: str | Path) -> object:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # not by `chmod`: the tests may run as root, who reads everything
    with pytest.raises(DistillError, match=f"{locked} cannot be read .Permission denied.: .* make it readable"):
        image_folder.scan(tmp_path)


def test_a_link_to_a_folder_is_told_of(tmp_path: Path) -> None:
    """It is not followed, since it may lead in a circle, but it is counted among what is left out."""
    (fill(tmp_path) / "roses" / "again").symlink_to("../tulips")
    assert image_folder.scan(tmp_path).traps[0].startswith("1 files")

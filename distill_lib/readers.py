"""Examples out of prepared TFDS folders, without TensorFlow: the checks, their remedies, and the decoding of images."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib import fashion
from distill_lib.errors import DistillError
from distill_lib.originals import read_originals

Rows = Sequence[dict[str, Any]]  # examples {"image": encoded bytes or uint8 (h, w, c), "label": integer, ...}


class MemoryRows(Sequence[dict[str, Any]]):
    """Rows over arrays: images uint8 (n, h, w) or (n, h, w, c), labels (n,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        return {"image": self.images[index], "label": self.labels[index]}


def embedded_rows(builder: str, expression: str) -> Rows:
    """Opens a split of the set that is part of this package.

    Args:
        builder: TFDS id, "fashion".
        expression: TFDS split expression.

    Raises:
        DistillError: a file is missing or is not the one on the card.
    """
    import tensorflow_datasets as tfds

    _checked(fashion.DATA)
    return tfds.data_source(builder, split=expression, data_dir=fashion.DATA, download=False, decoders=_undecoded())


@functools.cache
def _checked(data: Path) -> None:
    fashion.check(data)  # hashes 8 MB: once in a process is enough


def prepared_rows(builder: str, expression: str) -> Rows:
    """Opens a split of a set that was prepared in TFDS's data folder ($TFDS_DATA_DIR or ~/tensorflow_datasets).

    Args:
        builder: TFDS id, such as "oxford_flowers102".
        expression: TFDS split expression, such as "train[:90%]".

    Raises:
        DistillError: the set is not prepared as array_record, or a shard is missing.
    """
    import tensorflow_datasets as tfds

    data_dir = os.environ.get("TFDS_DATA_DIR")  # TFDS itself looks only when it is imported
    with quiet():
        info = tfds.builder(builder, data_dir=data_dir).info
        folder = Path(info.data_dir)
        if not (folder / "dataset_info.json").exists() or info.file_format.value != "array_record":
            raise _unprepared(builder, folder)
        _check_shards(info, folder)
        return tfds.data_source(builder, split=expression, data_dir=data_dir, download=False, decoders=_undecoded())


def _unprepared(builder: str, folder: Path) -> DistillError:
    return DistillError(
        f"{builder} is not prepared as array_record in {folder}. Preparing needs TensorFlow, once, in an environment "
        "of its own (reading does not): `pip install tensorflow tensorflow-datasets array_record scipy && "
        f"tfds build {builder} --file_format=array_record`; set TFDS_DATA_DIR if the data shall lie elsewhere."
    )


def _check_shards(info: Any, folder: Path) -> None:
    shards = [Path(path) for split in info.splits.values() for path in split.filepaths]
    missing = [path.name for path in shards if not path.exists()]
    if missing:
        raise DistillError(
            f"array_record that does not match its card in {folder}: {len(missing)} of {len(shards)} shards are "
            f"missing, the first is {missing[0]}. Delete the folder and prepare the set again."
        )


def _undecoded() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    # TFDS would decode with OpenCV where it is installed and Pillow elsewhere, and their JPEG pixels differ.
    return {"image": tfds.decode.SkipDecoding()}


def mock_rows(builder: str, expression: str, num_examples: int, *, embedded: bool) -> Rows:
    """Invents examples with `tfds.testing.mock_data`: the same ones for every split."""
    import tensorflow_datasets as tfds

    options = {"data_dir": str(fashion.DATA)} if embedded else {"policy": tfds.testing.MockPolicy.USE_CODE}
    with quiet(), tfds.testing.mock_data(num_examples=num_examples, **options):
        return tfds.data_source(builder, split=expression)


def teacher_rows() -> Rows:
    """The 57,960 training images of Fashion-MNIST that belong to the teacher alone, from the original files."""
    part = fashion.parts(read_originals())["teacher"]
    return MemoryRows(part.images, part.labels)


def decode(image: bytes | np.ndarray, channels: int, canvas: int | None) -> np.ndarray:
    """Decodes one image and fits it into a square canvas.

    Args:
        image: PNG or JPEG bytes, or an array uint8 (h, w) or (h, w, c).
        channels: 1 or 3.
        canvas: side of the square in pixels (aspect kept, black margins), or None to leave the size as it is.

    Returns:
        uint8 (H, W, channels).

    Raises:
        OSError: the bytes are no image that Pillow can decode.
    """
    from PIL import Image, ImageOps

    if isinstance(image, np.ndarray) and canvas is None:
        return image.reshape(*image.shape[:2], channels)
    if isinstance(image, np.ndarray):
        picture = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    else:
        picture = Image.open(io.BytesIO(image))
    mode = "L" if channels == 1 else "RGB"
    if picture.mode != mode:  # grey, palette and CMYK files among photographs
        picture = picture.convert(mode)
    if canvas is not None and picture.size != (canvas, canvas):
        picture = ImageOps.pad(picture, (canvas, canvas), method=Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences TFDS's log lines about folders that are not there: the caller says it in its own words."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

"""Examples out of prepared TFDS folders and other files, without TensorFlow, and their fitting into one size."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib.datasets import decode, fashion_idx
from distill_lib.datasets import embedded as dataset_embedded
from distill_lib.datasets.cards import Dataset
from distill_lib.errors import DistillError

Rows = Sequence[dict[str, Any]]  # examples {"image": encoded bytes or uint8 (h, w, c), "label": integer, ...}


class MemoryRows(Sequence[dict[str, Any]]):
    """Rows over arrays: images uint8 (n, h, w) or (n, h, w, c), labels (n,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, keys: tuple[str, str] = ("image", "label")) -> None:
        self.images, self.labels, self.keys = images, labels, keys

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        return dict(zip(self.keys, (self.images[index], self.labels[index]), strict=True))


def embedded_rows(expression: str) -> Rows:
    """Opens a split of `fashion`, which is part of this package.

    Args:
        expression: TFDS split expression.

    Raises:
        DistillError: a file is missing or is not the one on the card.
    """
    import tensorflow_datasets as tfds

    check_embedded(dataset_embedded.DATA)
    return tfds.data_source(
        "fashion", split=expression, data_dir=dataset_embedded.DATA, download=False, decoders=_undecoded("image")
    )


@functools.cache
def check_embedded(data: Path) -> None:
    """Compares the embedded files with their SHA-256, once in a process: they are 8 MB."""
    dataset_embedded.check(data)


def data_dir() -> str | None:
    """The folder that TFDS_DATA_DIR names now: TFDS itself looks only when it is imported."""
    return os.environ.get("TFDS_DATA_DIR") or None


def data_folder() -> Path:
    """Where TFDS looks for prepared sets."""
    return Path(data_dir() or Path.home() / "tensorflow_datasets").expanduser()


def builder_class(builder: str) -> type | None:
    """TFDS's code for a set; None where it has none, and knows the set, if at all, from its prepared files."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_cls(builder.partition("/")[0])
    except tfds.core.DatasetNotFoundError:
        return None


def prepared_rows(builder: str, expression: str, image: str = "image") -> Rows:
    """Opens a split of a set that was prepared in TFDS's data folder ($TFDS_DATA_DIR or ~/tensorflow_datasets).

    Args:
        builder: TFDS id, such as "oxford_flowers102".
        expression: TFDS split expression, such as "train[:90%]".
        image: name of the image in an example.

    Raises:
        DistillError: the set is not prepared as array_record, or a shard is missing; without the remedy.
    """
    import tensorflow_datasets as tfds

    with quiet():
        info = tfds.builder(builder, data_dir=data_dir()).info
        if problem := prepared_problem(info):
            raise DistillError(problem)
        return tfds.data_source(
            builder, split=expression, data_dir=data_dir(), download=False, decoders=_undecoded(image)
        )


def prepared_problem(info: Any) -> str:
    """What is wrong with a prepared set, by its info and the names of its files; empty if nothing is."""
    folder = Path(info.data_dir)
    if not (folder / "dataset_info.json").exists():
        return f"{info.full_name} is not prepared as array_record in {folder}"
    if info.file_format.value != "array_record":
        return f"{info.full_name} is not prepared as array_record in {folder} but as {info.file_format.value}"
    shards = [Path(path) for split in info.splits.values() for path in split.filepaths]
    missing = [path.name for path in shards if not path.exists()]
    if missing:
        return f"{len(missing)} of {len(shards)} shards are missing in {folder}, the first is {missing[0]}"
    return ""


def _undecoded(image: str) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    # TFDS would decode with OpenCV where it is installed and Pillow elsewhere, and their JPEG pixels differ.
    return {image: tfds.decode.SkipDecoding()}


def mock_rows(builder: str, expression: str, num_examples: int, *, embedded: bool) -> Rows:
    """Invents examples with `tfds.testing.mock_data`: the same ones for every split."""
    import tensorflow_datasets as tfds

    options = {"data_dir": str(dataset_embedded.DATA)} if embedded else {"policy": tfds.testing.MockPolicy.USE_CODE}
    with quiet(), tfds.testing.mock_data(num_examples=num_examples, **options):
        return tfds.data_source(builder, split=expression)


def invented_rows(num_examples: int, dataset: Dataset) -> Rows:
    """Invents squares of noise: the mock of a set whose code TFDS does not have."""
    random = np.random.Generator(np.random.Philox(num_examples))
    side = dataset.size or 40
    images = random.integers(0, 256, (num_examples, side, side, dataset.channels), np.uint8)
    return MemoryRows(images, random.integers(0, dataset.num_classes, num_examples), dataset.keys)


def original_rows(name: str) -> Rows:
    """Training images of Fashion-MNIST, from the original files and in their order.

    Args:
        name: "fashion_teacher" for the 57,960 that `fashion` does not hold; "fashion_mnist" for the 58,980 that are not
            its validation images.

    Raises:
        DistillError: the original files are not at hand.
    """
    with quiet():
        images, labels, *_ = fashion_idx.read_originals()
    rows = fashion_idx.choose(labels)
    if name == "fashion_teacher":
        return MemoryRows(images[rows["teacher"]], labels[rows["teacher"]])
    held_out = rows["validation"]
    return MemoryRows(np.delete(images, held_out, axis=0), np.delete(labels, held_out, axis=0))


def fitted(image: bytes | np.ndarray, channels: int, canvas: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Decodes one image and fits it into a square canvas.

    Args:
        image: PNG or JPEG bytes, or an array uint8 (h, w) or (h, w, c).
        channels: 1 or 3.
        canvas: side in pixels of the square, whose top left corner the image fills as far as its aspect allows; the
            rest is black. None leaves the size as it is.

    Returns:
        uint8 (H, W, channels), and the height and width that the image has in it.

    Raises:
        decode.ImageError: the bytes are no image that can be decoded.
    """
    pixels = decode.decode(image, channels)
    height, width = pixels.shape[:2]
    if canvas is None or (height, width) == (canvas, canvas):
        return pixels, (height, width)
    from PIL import Image

    scale = canvas / max(height, width)
    height, width = (max(1, round(side * scale)) for side in (height, width))
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    shown = np.zeros((canvas, canvas, channels), np.uint8)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    shown[:height, :width] = np.asarray(resized).reshape(height, width, channels)
    return shown, (height, width)


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

"""Data sets by name: what they are, where TFDS keeps them, and their images.

Every set is read through `tfds.data_source` from array_record files, without TensorFlow; the embedded `fashion` is a
prepared TFDS folder inside the package. Small sets are decoded whole (`arrays`); `load` gives random access. Images of
various sizes are fitted into a square canvas, which serves small sets and smoke tests; crops at decode time, for sets
that do not fit into memory, are absent on purpose.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distill_lib import fashion, readers
from distill_lib.errors import DistillError, unknown

SPLITS = fashion.SPLITS
CANVAS = 256  # pixels, side of the square that images of various sizes are brought to
MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images that `arrays` makes at most
MOCK_EXAMPLES = 64


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        name: short name used in recipes.
        builder: TFDS id.
        splits: TFDS split expression of "train", "validation" and "test".
        counts: number of images of each split.
        num_classes: number of classes.
        channels: 1 (grey) or 3 (RGB).
        size: side in pixels where all images are squares of one size, else None.
        licence, citation: terms of use and publication, in a few words.
        class_names: names in the order of the labels where they are few, else empty.
        embedded: whether the files are part of this package (all but the training images of `fashion_teacher`).
    """

    name: str
    builder: str
    splits: dict[str, str]
    counts: dict[str, int]
    num_classes: int
    channels: int
    size: int | None
    licence: str
    citation: str
    class_names: tuple[str, ...] = ()
    embedded: bool = False


def _fashion(name: str, train: int) -> Dataset:
    return Dataset(
        name=name,
        builder="fashion",
        splits={split: split for split in SPLITS},
        counts={"train": train, "validation": 1_020, "test": 10_000},
        num_classes=fashion.NUM_CLASSES,
        channels=1,
        size=28,
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf: Fashion-MNIST (arXiv 1708.07747)",
        class_names=fashion.CLASS_NAMES,
        embedded=True,
    )


def _photos(
    name: str, builder: str, splits: tuple[str, str, str], counts: tuple[int, int, int], **rest: Any
) -> Dataset:
    by_split = dict(zip(SPLITS, splits, strict=True)), dict(zip(SPLITS, counts, strict=True))
    return Dataset(name, builder, *by_split, channels=3, size=None, **rest)


# Splits of arXiv 2106.05237, Table 5. Flowers has more test than training images; that is right, not swapped.
_REGISTRY = (
    _fashion("fashion", 1_020),
    _fashion("fashion_teacher", 57_960),
    _photos(
        "flowers",
        "oxford_flowers102",
        ("train", "validation", "test"),
        (1_020, 1_020, 6_149),
        num_classes=102,
        licence="no licence stated; used for research",
        citation="Nilsback, Zisserman: Automated Flower Classification over a Large Number of Classes (ICVGIP 2008)",
    ),
    _photos(
        "pets",
        "oxford_iiit_pet",
        ("train[:90%]", "train[90%:]", "test"),
        (3_312, 368, 3_669),
        num_classes=37,
        licence="CC BY-SA 4.0",
        citation="Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs (CVPR 2012)",
    ),
    _photos(
        "food",
        "food101",
        ("train[:90%]", "train[90%:]", "validation"),
        (68_175, 7_575, 25_250),
        num_classes=101,
        licence="images of Foodspotting; scientific fair use",
        citation="Bossard, Guillaumin, Van Gool: Food-101 (ECCV 2014)",
    ),
    _photos(
        "sun397",
        "sun397/tfds",
        ("train", "validation", "test"),
        (76_128, 10_875, 21_750),
        num_classes=397,
        licence="no licence stated; used for research",
        citation="Xiao, Hays, Ehinger, Oliva, Torralba: SUN Database (CVPR 2010)",
    ),
    _photos(
        "imagenet",
        "imagenet2012",
        ("train[:98%]", "train[98%:]", "validation"),
        (1_255_544, 25_623, 50_000),
        num_classes=1_000,
        licence="non-commercial research and education, under ImageNet's terms of access",
        citation="Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge (IJCV 2015)",
    ),
)
_BY_NAME = {dataset.name: dataset for dataset in _REGISTRY}


class Arrays(NamedTuple):
    """A split in memory: images uint8 (N, H, W, C), labels int32 (N,), both read-only; mock marks invented data."""

    images: np.ndarray
    labels: np.ndarray
    mock: bool = False


def names() -> tuple[str, ...]:
    """The names of all data sets."""
    return tuple(_BY_NAME)


def get(name: str) -> Dataset:
    """Looks a data set up by name.

    Raises:
        DistillError: unknown name; the message lists the known ones.
    """
    if name not in _BY_NAME:
        raise unknown("dataset", name, _BY_NAME)
    return _BY_NAME[name]


@dataclass(frozen=True)
class Source:
    """Random access to a split, in the order of its files.

    Attributes:
        dataset: the data set.
        split: "train", "validation" or "test".
        rows: examples {"image": bytes or uint8 (h, w, c), "label": int}.
        size: number of examples, at most len(rows).
        canvas: side in pixels of the square that every image is fitted into, or None to leave sizes as they are.
        mock: whether the examples are invented.
    """

    dataset: Dataset
    split: str
    rows: readers.Rows
    size: int
    canvas: int | None
    mock: bool

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The image, uint8 (H, W, C), and label of one example.

        Raises:
            IndexError: no such example.
            DistillError: its record or its image is damaged.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"{self.dataset.name} {self.split} has examples 0 to {self.size - 1}, not {index}")
        try:
            row = self.rows[int(index)]
        except RuntimeError as error:
            raise _mismatch(self.dataset, self.split, str(error).splitlines()[0]) from error
        try:
            return readers.decode(row["image"], self.dataset.channels, self.canvas), int(row["label"])
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's; sun397 is known for a JPEG like that
            raise DistillError(
                f"image {index} of {self.dataset.name} {self.split} cannot be decoded ({error}): prepare the set again."
            ) from error

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images uint8 (n, H, W, C) of these examples, which must be of one size."""
        return np.stack([self[int(index)][0] for index in indices])

    def labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Labels int32 (n,) of these examples."""
        return np.array([self[int(index)][1] for index in indices], np.int32)


def load(name: str, split: str, *, limit: int | None = None, mock: bool = False, canvas: int | None = None) -> Source:
    """Opens a split for random access, through `tfds.data_source`.

    Args:
        name: data set.
        split: "train", "validation" or "test".
        limit: the first `limit` examples only. `fashion` is stored so that any prefix of its train and validation
            splits holds every class equally often, to within one; other sets are stored in shuffled order.
        mock: invented images from `tfds.testing.mock_data` instead of the files, for tests of the machinery. Labels say
            nothing about them, and all splits hold the same ones.
        canvas: side in pixels of the square that every image is fitted into (aspect kept, black margins); by default
            256 where images differ in size, and none where they do not.

    Returns:
        The source.

    Raises:
        DistillError: unknown name, limit too large, or files that are absent or damaged; the message says what to do.
    """
    dataset = get(name)
    _check_request(dataset, split, limit)
    canvas = CANVAS if canvas is None and dataset.size is None else canvas
    rows = _mock_rows(dataset, split, limit) if mock else _rows(dataset, split)
    return Source(dataset, split, rows, limit or len(rows), canvas, mock)


def arrays(name: str, split: str, limit: int | None = None, *, mock: bool = False, canvas: int | None = None) -> Arrays:
    """Decodes a split into memory; `fashion` and `fashion_teacher` once in a process. Arguments as in `load`.

    Returns:
        Read-only arrays, in the order of the files: images uint8 (N, H, W, C), labels int32 (N,).

    Raises:
        DistillError: as in `load`; also if the images would take more than 8 GiB.
    """
    dataset = get(name)
    if dataset.size is not None and canvas is None and not mock:
        _check_request(dataset, split, limit)
        whole = _whole(name if split == "train" else "fashion", split)
        return Arrays(whole.images[:limit], whole.labels[:limit])
    return _decoded(load(name, split, limit=limit, mock=mock, canvas=canvas))


@functools.cache
def _whole(name: str, split: str) -> Arrays:
    return _decoded(load(name, split))


def _decoded(source: Source) -> Arrays:
    dataset, side = source.dataset, source.canvas or source.dataset.size or CANVAS
    num_bytes = len(source) * side * side * dataset.channels
    if num_bytes > MEMORY_LIMIT:
        raise DistillError(
            f"{dataset.name} {source.split} at {side} px takes {num_bytes / 2**30:.0f} GiB in memory, more than "
            f"{MEMORY_LIMIT / 2**30:.0f}: give a limit or a smaller canvas."
        )
    images, labels = zip(*(source[index] for index in range(len(source))), strict=True)
    whole = Arrays(np.stack(images), np.array(labels, np.int32), source.mock)
    for array in (whole.images, whole.labels):
        array.setflags(write=False)  # `_whole` shares them
    return whole


def _rows(dataset: Dataset, split: str) -> readers.Rows:
    if (dataset.name, split) == ("fashion_teacher", "train"):
        rows = readers.teacher_rows()
    elif dataset.embedded:
        rows = readers.embedded_rows(dataset.builder, dataset.splits[split])
    else:
        rows = readers.prepared_rows(dataset.builder, dataset.splits[split])
    if len(rows) != dataset.counts[split]:
        raise _mismatch(dataset, split, f"{len(rows)} examples instead of {dataset.counts[split]}")
    return rows


def _mock_rows(dataset: Dataset, split: str, limit: int | None) -> readers.Rows:
    return readers.mock_rows(dataset.builder, dataset.splits[split], limit or MOCK_EXAMPLES, embedded=dataset.embedded)


def _mismatch(dataset: Dataset, split: str, problem: str) -> DistillError:
    return DistillError(
        f"array_record that does not match its card: {dataset.name} {split}: {problem}. Delete the prepared folder of "
        f"{dataset.builder} and prepare it again."
    )


def _check_request(dataset: Dataset, split: str, limit: int | None) -> None:
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    count = dataset.counts[split]
    if limit is not None and not 1 <= limit <= count:
        raise DistillError(f"{dataset.name} {split} has {count} images: choose a limit from 1 to {count}, not {limit}.")

"""Data sets by name, and their images: `load` gives random access, `arrays` all, `Source.encoded` the stored bytes.

flowers               a card in `cards`
tfds:cifar10          a set of TFDS, by its id; a config follows after a slash; see `tfds_sets`
folder:/path          a folder with a folder of pictures for each class; see `image_folder`
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distill_lib.datasets import decode, fashion, image_folder, package_images, tfds_sets
from distill_lib.datasets.cards import CARDS, SPLITS, Dataset
from distill_lib.datasets.decode import ImageError
from distill_lib.errors import DistillError, unknown

CANVAS = 256  # pixels, side of the square that images of various sizes are brought to
MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images that `arrays` makes at most
MOCK_EXAMPLES = 64
WHOLE, SAMPLED = 4_096, 1_024  # examples: of larger splits that many are read for a digest, evenly spread
_PROBED = 32  # images whose headers tell how large those of a set are
Label = int | tuple[int, ...]


class Arrays(NamedTuple):
    """A split in memory; read-only."""

    images: np.ndarray  #: uint8 (N, H, W, C)
    labels: np.ndarray  #: int32 (N,), or bool (N, classes) where an image has any number of them
    extents: np.ndarray | None = None  #: int32 (N, 2), sides of each image in its canvas; None where images fill it


class Encoded(NamedTuple):
    """An example as it is stored: its image, its class or classes, and the name of its file."""

    image: decode.Encoded
    label: Label
    name: str


@dataclass(frozen=True)
class Source:
    """Random access to a split, in the order of its files."""

    dataset: Dataset
    split: str
    rows: tfds_sets.Rows  #: examples, with the card's names for image and label
    size: int  #: number of examples, at most len(rows)
    canvas: int | None  #: side in pixels of the square that every image is fitted into; None leaves sizes as they are

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[np.ndarray, Label]:
        """Image uint8 (H, W, C) and label, or several, of an example; IndexError, or DistillError if it is damaged."""
        return self.fitted(index)[::2]

    def fitted(self, index: int) -> tuple[np.ndarray, tuple[int, int], Label]:
        """As `source[index]`, with the height and width that the image has in its canvas."""
        image, label, name = self.encoded(index)
        try:
            return *decode.fitted(image, self.dataset.channels, self.canvas), label
        except ImageError as error:
            raise DistillError(
                f"image {index} of {self.dataset.name} {self.split}, {name}, cannot be decoded ({error}): "
                f"{'replace or remove it' if self.dataset.origin == 'folder' else 'prepare the set again'}."
            ) from error

    def encoded(self, index: int) -> Encoded:
        """One example as it is stored; raises as `source[index]` does, but not for a damaged image."""
        if not 0 <= index < self.size:
            raise IndexError(f"{self.dataset.name} {self.split} has examples 0 to {self.size - 1}, not {index}")
        try:
            row = self.rows[int(index)]
        except RuntimeError as error:
            raise _mismatch(self.dataset, self.split, str(error).splitlines()[0]) from error
        image, label = (row[key] for key in self.dataset.keys)
        name = row.get("file_name", f"{self.split}/{index}")
        label = tuple(sorted({int(number) for number in label})) if self.dataset.multilabel else int(label)
        return Encoded(image, label, name.decode() if isinstance(name, bytes) else str(name))

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images uint8 (n, H, W, C) of these examples, which must be of one size."""
        return np.stack([self[int(index)][0] for index in indices])

    def labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Labels int32 (n,) of these examples, or bool (n, classes) where an image has any number of them."""
        return _label_array(self.dataset, [self.encoded(int(index)).label for index in indices])


def names() -> tuple[str, ...]:
    """Names of all data sets that have a card; some are for evaluation or for transfer alone, as their splits tell."""
    return tuple(CARDS)


def get(name: str | Dataset) -> Dataset:
    """The card of one of `names()`, "tfds:" and an id, "folder:" and a path, or itself; DistillError for others."""
    if isinstance(name, Dataset):
        return name
    if name.startswith(image_folder.FOLDER):
        return image_folder.scan(image_folder.path_of(name))
    if name.startswith(tfds_sets.PREFIX):
        return tfds_sets.card(name)
    if name not in CARDS:
        raise unknown("dataset", name, [*CARDS, "tfds:NAME", "folder:PATH"])
    return CARDS[name]


def class_names(name: str) -> tuple[str, ...]:
    """Names of a data set's classes, TFDS's or those of folders, in the order of the labels; raises as `get`."""
    dataset = get(name)
    if dataset.class_names:
        return dataset.class_names
    feature = tfds_sets.read_info(dataset.builder).features[dataset.keys[1]]
    return tuple(getattr(feature, "feature", feature).names)  # a sequence of labels holds the label as its feature


def load(
    name: str | Dataset,
    split: str,
    *,
    limit: int | None = None,
    mock: bool = False,
    canvas: int | None = None,
    channels: int | None = None,
) -> Source:
    """Opens a split, or its first `limit` examples; images are decoded when they are asked for.

    With `mock` noise is invented, 64 images without a limit. They are fitted into a square of side `canvas` (None: 256
    where they differ in size), in 1 or 3 `channels` (None: the card's). DistillError for an unknown name, a limit that
    is too large, or files that are absent or damaged.
    """
    dataset = _requested(name, split, limit)
    canvas = CANVAS if canvas is None and dataset.size is None else canvas
    rows = tfds_sets.invented_rows(limit or MOCK_EXAMPLES, dataset) if mock else _rows(dataset, split)
    dataset = dataclasses.replace(dataset, channels=channels or dataset.channels)
    return Source(dataset, split, rows, min(limit or len(rows), len(rows)), canvas)


def arrays(
    name: str | Dataset,
    split: str,
    limit: int | None = None,
    *,
    mock: bool = False,
    canvas: int | None = None,
    channels: int | None = None,
) -> Arrays:
    """Decodes a split into memory, in the order of its files; as `load`, and DistillError for more than 8 GiB."""
    dataset = _requested(name, split, limit)
    kept = limit is None and not mock and canvas is None and channels in (None, 1)
    if kept and dataset.origin in ("embedded", "originals"):
        return _whole(dataset.name if split == "train" else "fashion", split)
    return _decoded(load(dataset, split, limit=limit, mock=mock, canvas=canvas, channels=channels))


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
    images, extents, labels = zip(*(source.fitted(index) for index in range(len(source))), strict=True)
    sizes = np.array(extents, np.int32) if source.canvas is not None else None
    whole = Arrays(np.stack(images), _label_array(dataset, labels), sizes)
    for array in whole:
        if array is not None:
            array.setflags(write=False)  # `_whole` shares them
    return whole


def first(arrays: Arrays, count: int | None) -> Arrays:
    """The first so many examples; None takes all."""
    return Arrays(*(None if array is None else array[:count] for array in arrays))  # type: ignore[arg-type]


def training_images(dataset: Dataset, limit: int | None = None, *, mock: bool = False) -> int | None:
    """How many images there are to learn from, by the card; None where only the prepared set tells. See `load`."""
    if mock:
        return limit or MOCK_EXAMPLES
    count = dataset.counts.get("train")
    return None if count is None else min(count, limit or count)


def fits(dataset: Dataset) -> bool:
    """Whether all splits, decoded, are small enough to be kept in memory; a set of unknown size is taken to be."""
    side = dataset.size or CANVAS
    return (dataset.examples or 0) * side * side * dataset.channels <= MEMORY_LIMIT


def shrunk(dataset: Dataset) -> bool:
    """Whether memory would hold images smaller than they are, by the headers of the first ones; raises as `load`."""
    if dataset.size is not None:
        return False
    source = load(dataset, next(iter(dataset.splits)))
    for index in range(min(len(source), _PROBED)):
        with contextlib.suppress(ImageError):  # told when it is shown
            if max(decode.sides(source.encoded(index).image)) > CANVAS:
                return True
    return False


def fingerprint(name: str | Dataset) -> str:
    """What a run's name must include beside the data set's: the state of a folder of pictures; empty for other sets."""
    dataset = get(name)
    return image_folder.fingerprint(dataset) if dataset.origin == "folder" else ""


def digest(name: str | Dataset, *splits: str, mock: bool = False) -> str:
    """Says in 16 hexadecimal digits what splits of a data set hold (none given: all), the same on every machine.

    Of more than `WHOLE` examples `SAMPLED` are read; of a folder paths and sizes of all count. Errors as of `load`.
    """
    dataset = get(name)
    content = hashlib.sha256(("" if mock else fingerprint(dataset)).encode())
    for split in splits or dataset.splits:
        source = load(dataset, split, mock=mock)
        count = len(source)
        content.update(f"{split} {count}\n".encode())
        for index in range(count) if count <= WHOLE else np.linspace(0, count - 1, SAMPLED).astype(int):
            image, label, file = source.encoded(int(index))
            kind = image.shape if isinstance(image, np.ndarray) else type(image).__name__
            stored = image.tobytes() if isinstance(image, np.ndarray) else image if isinstance(image, bytes) else b""
            content.update(f"{file!a} {label} {kind}\n".encode() + hashlib.sha256(stored).digest())
    return content.hexdigest()[:16]


def _requested(name: str | Dataset, split: str, limit: int | None) -> Dataset:
    dataset = get(name)
    if split not in dataset.splits:
        raise unknown(f"split of {dataset.name}" if split in SPLITS else "split", split, dataset.splits)
    count = dataset.counts.get(split)
    if limit is not None and not 1 <= limit <= (count or limit):
        raise DistillError(f"{dataset.name} {split} has {count} images: choose a limit from 1 to {count}, not {limit}.")
    return dataset


def _label_array(dataset: Dataset, labels: Sequence[Label]) -> np.ndarray:
    if not dataset.multilabel:
        return np.array(labels, np.int32)
    hot = np.zeros((len(labels), dataset.num_classes), bool)
    for row, several in zip(hot, labels, strict=True):
        row[list(several)] = True  # type: ignore[arg-type]
    return hot


def _rows(dataset: Dataset, split: str) -> tfds_sets.Rows:
    rows: tfds_sets.Rows
    if dataset.origin == "folder":
        rows = image_folder.PictureRows(dataset, split)
    elif dataset.origin == "tfds":
        if problem := tfds_sets.files_problem(tfds_sets.read_info(dataset.builder)):
            raise DistillError(f"{problem}. {tfds_sets.remedy(dataset)}")
        rows = tfds_sets.open_rows(dataset.builder, dataset.splits[split], dataset.keys[0])
    elif dataset.origin == "package":
        rows = tfds_sets.memory_rows(*package_images.read(dataset.name, split))
    elif dataset.origin == "originals" and split == "train":
        rows = tfds_sets.memory_rows(*fashion.training_images(dataset.name))
    else:
        fashion.check(fashion.DATA)
        rows = tfds_sets.open_rows("fashion", split, data=fashion.DATA)
    if problem := dataset.mismatch(split, len(rows)):
        raise _mismatch(dataset, split, problem)
    return rows


def _mismatch(dataset: Dataset, split: str, problem: str) -> DistillError:
    return DistillError(
        f"array_record that does not match its card: {dataset.name} {split}: {problem}. Delete the prepared folder of "
        f"{dataset.builder} and prepare it again."
    )

"""Fashion-MNIST: the embedded files of `fashion`, the original ones, and who sees which images.

Of each class the first 102 original training images are the training split of `fashion`, and the next 102 the
validation split, both in turns of the classes; all others are the teacher's alone. The test split is the official one.
"""

import gzip
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill_lib.datasets.cards import CARDS, SPLITS
from distill_lib.errors import DistillError
from distill_lib.weights import sha256

DATA = Path(__file__).parents[1] / "data"  # a TFDS data folder: DATA/fashion/1.0.0
VERSION = "1.0.0"
SUMS = "SHA256SUMS"
FILES = (
    *(f"{VERSION}/{name}" for name in ("dataset_info.json", "features.json", "label.labels.txt")),
    *(f"{VERSION}/fashion-{split}.array_record-00000-of-00001" for split in SPLITS),
)
PER_CLASS = 102  # images a class in train and in validation: the shape of Flowers102
FOLDER_VARIABLE = "DISTILL_FASHION_ORIGINALS"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
REMEDY = CARDS["fashion_mnist"].remedy


def read_sums(file: Path) -> dict[str, str]:
    """Reads a file of checksums: relative path -> SHA-256."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


IDX_SHA256 = read_sums(DATA / "fashion_originals.sha256")  # uncompressed: any compression of them is as good


class Originals(NamedTuple):
    """The original files: images uint8 (60000, 28, 28) and (10000, 28, 28), labels uint8 (60000,) and (10000,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def check(data: Path) -> None:
    """Raises DistillError unless every file of data/fashion is the one on the card (8 MB, about 10 ms)."""
    folder = data / "fashion"
    try:
        sums = read_sums(folder / SUMS)
        problem = next((f"{name} differs from {SUMS}" for name in FILES if sha256(folder / name) != sums.get(name)), "")
    except (OSError, ValueError, DistillError) as error:
        problem = f"{SUMS} or a file that it lists is missing or damaged ({error})"
    if problem:
        raise DistillError(
            f"array_record that does not match its card in {folder}: {problem}. Install the package again, or rebuild "
            "the folder with `python tests/makers/fashion_build.py build --source DIR --out DIR`."
        )


def folder() -> Path:
    """The folder that DISTILL_FASHION_ORIGINALS names, else the one of the Debian package."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEBIAN_FOLDER)


def read_originals(source: Path | None = None) -> Originals:
    """Reads the four IDX files of a folder (`folder()`), gzipped or not; DistillError where one is not the original."""
    return Originals(*(_read(source or folder(), name) for name in IDX_SHA256))


def training_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Training images that `fashion` does not hold, or for "fashion_mnist" not in its validation, and their labels."""
    images, labels, *_ = read_originals()
    rows = choose(labels)
    kept = rows["teacher"] if name == "fashion_teacher" else np.union1d(rows["train"], rows["teacher"])
    return images[kept], labels[kept]


def _read(place: Path, name: str) -> np.ndarray:
    path = place / name if (place / name).exists() else place / f"{name}.gz"
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except FileNotFoundError as error:
        raise DistillError(f"the original Fashion-MNIST file {path} is missing. {REMEDY}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DistillError(f"{path} is damaged or cannot be read ({error}): fetch it again. {REMEDY}") from error
    if hashlib.sha256(content).hexdigest() != IDX_SHA256[name]:
        raise DistillError(f"{name} in {place} is not the original (its SHA-256 differs): fetch it again. {REMEDY}")
    rank = content[3]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(struct.unpack_from(f">{rank}I", content, 4))


def choose(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of the original training file that belong to "train", "validation" and "teacher", by its labels."""
    classes = range(CARDS["fashion"].num_classes)
    first = np.stack([np.flatnonzero(labels == label)[: 2 * PER_CLASS] for label in classes], axis=1)
    train, validation = first[:PER_CLASS].ravel(), first[PER_CLASS:].ravel()
    teacher = np.setdiff1d(np.arange(len(labels)), np.concatenate([train, validation]))
    return {"train": train, "validation": validation, "teacher": teacher}

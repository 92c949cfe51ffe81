"""Cards of the data sets that have a name here: what they are, and the traps that others fell into."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPLITS = ("train", "validation", "test")
FILE = Path(__file__).parents[1] / "data" / "datasets.toml"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set."""

    name: str  #: the name that recipes use
    builder: str  #: TFDS id; the path of a folder of pictures
    splits: dict[str, str]  #: TFDS split expression, or description, of "train", "validation", "test", or some of them
    counts: dict[str, int]  #: number of images of each split; empty where only the prepared set tells
    num_classes: int
    channels: int = 3  #: 1 (grey) or 3 (RGB)
    size: int | None = None  #: side in pixels where all images are squares of one size
    licence: str  #: terms of use, in a few words
    citation: str
    class_names: tuple[str, ...] = ()  #: in the order of the labels, if the card has them; see `datasets.class_names`
    origin: str = "tfds"  #: or "embedded" (here), "package", "originals" (files of Fashion-MNIST), "folder"
    keys: tuple[str, str] = ("image", "label")  #: names of image and label in an example
    multilabel: bool = False  #: whether an example has any number of labels, and not just one
    left_out: dict[str, int] = field(default_factory=dict)  #: images that TFDS may leave out, as they cannot be decoded
    download_bytes: int | None = None  #: what preparing fetches; None if unknown
    disk_bytes: int | None = None  #: size of the prepared set; None if unknown
    manual_files: dict[str, int] = field(default_factory=dict)  #: name and bytes of files that only the user can fetch
    packages: tuple[str, ...] = ()  #: what preparing needs beside TensorFlow and TFDS
    remedy: str = ""  #: how to get it; empty where TFDS prepares it
    traps: tuple[str, ...] = ()  #: what is known to go wrong or to mislead, a sentence each
    pictures: dict[str, Any] = field(default_factory=dict, repr=False)  #: of a folder, by split, when it was looked at

    @property
    def examples(self) -> int | None:
        """Number of images of all splits, if known."""
        return sum(self.counts.values()) or None

    def mismatch(self, split: str, count: int) -> str:
        """What is wrong with a split of so many images; empty if nothing is."""
        expected = self.counts.get(split, count)
        fits = expected - self.left_out.get(split, 0) <= count <= expected
        return "" if fits else f"{count:,} instead of {expected:,} {split} images"


def inherited(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tables of a file, each with what it leaves out from an earlier one that it is `like`, and lists as tuples."""
    whole: dict[str, dict[str, Any]] = {}
    for name, own in tables.items():
        rest = {key: tuple(value) if isinstance(value, list) else value for key, value in own.items() if key != "like"}
        whole[name] = whole.get(own.get("like", ""), {}) | rest
    return whole


_TABLES = inherited(tomllib.loads(FILE.read_text(encoding="utf-8")))
CARDS = {name: Dataset(name=name, **fields) for name, fields in _TABLES.items()}
"""All cards, by name."""

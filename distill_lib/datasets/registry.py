"""Data sets by name: those with a card, any image-classification set of TFDS, and folders of pictures.

flowers               a card in `cards`
tfds:cifar10          a set of TFDS, by its id; a config follows after a slash; see `tfds_sets`
folder:/path          a folder with a folder of pictures for each class; see `image_folder`
"""

from __future__ import annotations

import functools

from distill_lib.datasets import image_folder, tfds_sets
from distill_lib.datasets.cards import CARDS, Dataset
from distill_lib.errors import unknown

_BY_NAME = {dataset.name: dataset for dataset in CARDS}


def names() -> tuple[str, ...]:
    """Names of all data sets that have a card; some are for evaluation or for transfer alone, as their splits tell."""
    return tuple(_BY_NAME)


def get(name: str) -> Dataset:
    """The card of a data set: one of `names()`, "tfds:" and a TFDS id, or "folder:" and a path.

    Raises DistillError for an unknown name, a TFDS set that is no image classification, a folder that is not as it must
    be.
    """
    if name.startswith(image_folder.FOLDER):
        return image_folder.card(name, image_folder.path_of(name))
    if name.startswith(tfds_sets.PREFIX):
        return tfds_sets.card(name)
    if name not in _BY_NAME:
        raise unknown("dataset", name, [*_BY_NAME, "tfds:NAME", "folder:PATH"])
    return _BY_NAME[name]


def class_names(name: str) -> tuple[str, ...]:
    """Names of a data set's classes, in the order of the labels; raises as `get`.

    They are TFDS's (ImageNet: WordNet ids), or those of the folders; numbers where there are no names.
    """
    dataset = get(name)
    if dataset.class_names:
        return dataset.class_names
    return _names_in_tfds(dataset.builder, dataset.keys[1])


@functools.cache
def _names_in_tfds(builder: str, label: str) -> tuple[str, ...]:
    feature = tfds_sets.read_info(builder).features[label]
    return tuple(getattr(feature, "feature", feature).names)  # a sequence of labels holds the label as its feature


def fingerprint(name: str) -> str:
    """What a run's name must include beside the data set's: the state of a folder of pictures; empty for other sets."""
    return image_folder.fingerprint(image_folder.path_of(name)) if name.startswith(image_folder.FOLDER) else ""

"""Data sets by name: those with a card, any image-classification set of TFDS, and folders of pictures.

flowers               a card in `cards`
tfds:cifar10          a set of TFDS, by its id; a config follows after a slash
folder:/path          a folder with a folder of pictures for each class; see `image_folder`
"""

from __future__ import annotations

import difflib
import functools
from typing import Any

import numpy as np

from distill_lib.datasets import image_folder
from distill_lib.datasets.cards import CARDS, SPLITS, Dataset
from distill_lib.datasets.image_folder import FOLDER
from distill_lib.datasets.readers import data_dir, data_folder, quiet
from distill_lib.errors import DistillError, unknown

TFDS = "tfds:"
ASSUMED = "assumed until the set is prepared"
_BY_NAME = {dataset.name: dataset for dataset in CARDS}


def names() -> tuple[str, ...]:
    """Names of all data sets that have a card; some are for evaluation or for transfer alone, as their splits tell."""
    return tuple(_BY_NAME)


def get(name: str) -> Dataset:
    """Looks a data set up by name.

    Args:
        name: a name in `names()`, or "tfds:" and a TFDS id, or "folder:" and a path.

    Returns:
        Its card.

    Raises:
        DistillError: unknown name, a TFDS set that is no image classification, or a folder that is not as it must be.
    """
    if name.startswith(FOLDER):
        return image_folder.card(name, image_folder.path_of(name))
    if name.startswith(TFDS):
        return _from_tfds(name)
    if name not in _BY_NAME:
        raise unknown("dataset", name, [*_BY_NAME, "tfds:NAME", "folder:PATH"])
    return _BY_NAME[name]


def class_names(name: str) -> tuple[str, ...]:
    """Names of the classes of a data set, in the order of the labels.

    Args:
        name: a data set.

    Returns:
        Its names as TFDS has them (ImageNet: WordNet ids), or the folders' names; numbers where there are no names.

    Raises:
        DistillError: as in `get`.
    """
    dataset = get(name)
    if dataset.class_names:
        return dataset.class_names
    return _names_in_tfds(dataset.builder, dataset.keys[1])


@functools.cache
def _names_in_tfds(builder: str, label: str) -> tuple[str, ...]:
    feature = tfds_info(builder).features[label]
    return tuple(getattr(feature, "feature", feature).names)  # a sequence of labels holds the label as its feature


def fingerprint(name: str) -> str:
    """What a run's name must include beside the data set's: the state of a folder of pictures; empty for other sets."""
    return image_folder.fingerprint(image_folder.path_of(name)) if name.startswith(FOLDER) else ""


def tfds_info(builder: str) -> Any:
    """What TFDS knows of a set: of the prepared one if it is there, else from its code, without splits and sizes.

    Raises:
        DistillError: TFDS does not know it, and it is not prepared in TFDS's data folder either.
    """
    import tensorflow_datasets as tfds

    try:
        with quiet():
            return tfds.builder(builder, data_dir=data_dir()).info
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(builder, tfds.list_builders(with_community_datasets=False), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise DistillError(
            f"unknown TFDS data set {builder!r}.{hint} It is neither in TFDS's catalogue "
            f"(tensorflow.org/datasets/catalog) nor prepared in {data_folder()}."
        ) from error
    except (ValueError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        hint = "choose another set" if isinstance(error, ImportError) else "check the config after the slash"
        raise DistillError(f"TFDS cannot open {builder!r} ({reason}): {hint}.") from error


def _from_tfds(name: str) -> Dataset:
    builder = name.removeprefix(TFDS)
    if ":" in builder or not builder:
        raise DistillError(f"{name!r} is no set of TFDS: write tfds:NAME or tfds:NAME/CONFIG, without a version.")
    info = tfds_info(builder)
    keys, channels, size, classes = _features(builder, info)
    known = {split: info.splits[split].num_examples for split in info.splits}
    splits = split_expressions(builder, known)
    return Dataset(
        name=name,
        builder=builder,
        splits=splits,
        counts={split: info.splits[part].num_examples for split, part in splits.items()} if known else {},
        num_classes=classes,
        channels=channels,
        size=size,
        licence="see the set's home page" + (f", {info.homepage}" if info.homepage else ""),
        citation=" ".join(info.citation.split()) or "none given",
        keys=keys,
        download_bytes=int(info.download_size) or None,
        disk_bytes=int(info.dataset_size) or None,
        traps=() if known else (f"Splits are {ASSUMED}: TFDS's code alone does not say which there are.",),
    )


def split_expressions(builder: str, known: dict[str, int]) -> dict[str, str]:
    """Chooses train, validation and test of a TFDS set.

    Args:
        builder: TFDS id, for the error.
        known: the splits that it has, and their sizes; empty if that is not known yet.

    Returns:
        TFDS split expressions. With all three they are taken as they are; with one beside train that one is test, and
        validation the last 10 % of train; with train alone, 80, 10 and 10 % of it.

    Raises:
        DistillError: there is no train.
    """
    if known and "train" not in known:
        raise DistillError(f"{builder} has no split `train`, only {', '.join(known)}: nothing to learn from.")
    if set(SPLITS) <= set(known):
        return {split: split for split in SPLITS}
    if known and not {"test", "validation"} & set(known):
        return {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}
    judged = "validation" if "validation" in known else "test"
    return {"train": "train[:90%]", "validation": "train[90%:]", "test": judged}


def _features(builder: str, info: Any) -> tuple[tuple[str, str], int, int | None, int]:
    """Keys of image and label, channels, side of the squares if all are of one size, and number of classes."""
    import tensorflow_datasets as tfds

    features = dict(info.features) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    keys = info.supervised_keys or ("image", "label")
    image, label = keys if len(keys) == 2 and all(isinstance(key, str) for key in keys) else ("image", "label")
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
        and np.dtype(features[image].np_dtype) == np.uint8
    ):
        held = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in features.items()) or "other things"
        raise DistillError(f"{builder} is no set of images with one label each; it holds {held}: choose another.")
    height, width, channels = features[image].shape
    size = height if height is not None and height == width else None
    return (image, label), 1 if channels == 1 else 3, size, features[label].num_classes

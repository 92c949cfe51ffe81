"""Image-classification sets of TensorFlow Datasets (TFDS): their cards, files and examples, without TensorFlow."""

import contextlib
import difflib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib.datasets.cards import SPLITS, Dataset
from distill_lib.errors import DistillError

PREFIX = "tfds:"  # before the id, in the name of such a data set
ASSUMED = "assumed until the set is prepared"
Rows = Sequence[dict[str, Any]]  # examples {"image": encoded bytes or uint8 (h, w, c), "label": integer, ...}


def data_folder() -> Path:
    """Where prepared sets lie: what TFDS_DATA_DIR names now, as TFDS itself looks only when it is imported."""
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()


def read_info(builder: str) -> Any:
    """What TFDS knows of a set, prepared or, without splits and sizes, from its code; DistillError where nothing."""
    import tensorflow_datasets as tfds

    try:
        with quiet():
            return tfds.builder(builder, data_dir=data_folder()).info
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


def card(name: str) -> Dataset:
    """The card of "tfds:NAME"; raises DistillError where it is no set of images with one label each."""
    import tensorflow_datasets as tfds

    builder = name.removeprefix(PREFIX)
    if ":" in builder or not builder:
        raise DistillError(f"{name!r} is no set of TFDS: write tfds:NAME or tfds:NAME/CONFIG, without a version.")
    info = read_info(builder)
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
    known = {split: info.splits[split].num_examples for split in info.splits}
    splits = split_expressions(builder, known)
    return Dataset(
        name=name,
        builder=builder,
        keys=(image, label),
        channels=1 if channels == 1 else 3,
        size=height if height == width else None,
        num_classes=features[label].num_classes,
        splits=splits,
        counts={split: info.splits[part].num_examples for split, part in splits.items()} if known else {},
        licence="see the set's home page" + (f", {info.homepage}" if info.homepage else ""),
        citation=" ".join(info.citation.split()) or "none given",
        download_bytes=int(info.download_size) or None,
        disk_bytes=int(info.dataset_size) or None,
        traps=() if known else (f"Splits are {ASSUMED}: TFDS's code alone does not say which there are.",),
    )


def split_expressions(builder: str, known: dict[str, int]) -> dict[str, str]:
    """Expressions for train, validation and test of a TFDS set with these splits (empty: unknown), or DistillError.

    With one beside train that is test, and validation the last 10 % of train; with train alone, 80, 10 and 10 % of it.
    """
    if known and "train" not in known:
        raise DistillError(f"{builder} has no split `train`, only {', '.join(known)}: nothing to learn from.")
    if set(SPLITS) <= set(known):
        return {split: split for split in SPLITS}
    if known and not {"test", "validation"} & set(known):
        return {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}
    judged = "validation" if "validation" in known else "test"
    return {"train": "train[:90%]", "validation": "train[90%:]", "test": judged}


def files_problem(info: Any) -> str:
    """What is wrong with a prepared set, by its info and the names of its files; empty if nothing is."""
    folder = Path(info.data_dir)
    prepared = (folder / "dataset_info.json").exists()
    if not prepared or info.file_format.value != "array_record":
        other = f" but as {info.file_format.value}" if prepared else ""
        return f"{info.full_name} is not prepared as array_record in {folder}{other}"
    shards = [Path(path) for split in info.splits.values() for path in split.filepaths]
    missing = [path.name for path in shards if not path.exists()]
    if missing:
        return f"{len(missing)} of {len(shards)} shards are missing in {folder}, the first is {missing[0]}"
    return ""


def content_problem(dataset: Dataset, info: Any) -> str:
    """What is wrong with a set all of whose files are there, by what they say of themselves."""
    from array_record.python.array_record_module import ArrayRecordReader as reader  # noqa: N813

    for split, expression in dataset.splits.items():
        part, _, _ = expression.partition("[")
        if part not in info.splits:
            return f"{info.data_dir} holds no split {part}"
        if problem := dataset.mismatch(split, info.splits[expression].num_examples):
            return f"{problem} in {info.data_dir}"
    for split in info.splits.values():
        for path, expected in zip(split.filepaths, split.shard_lengths, strict=True):
            records = None
            with contextlib.suppress(RuntimeError, ValueError), contextlib.closing(reader(str(path))) as opened:
                records = opened.num_records()
            if records != expected:
                return f"{path} is damaged"
    return ""


def remedy(dataset: Dataset, damaged: str = "", *, register_checksums: bool = False) -> str:
    """How to get a set of TFDS, in one line with the exact command; `damaged` is a folder that is in the way."""
    first = f"Delete {damaged}, or set TFDS_DATA_DIR to another place, and prepare it again. " if damaged else ""
    if not needs_tensorflow(dataset.builder):
        return f"{first}Prepare it: `distill data prepare {dataset.name}`"
    typed = command(dataset, register_checksums=register_checksums)
    first += f"Preparing needs TensorFlow, once, in a throw-away environment (reading does not): `{typed}`"
    return f"{first}; set TFDS_DATA_DIR first if the data shall lie elsewhere."


def command(dataset: Dataset, *, register_checksums: bool = False) -> str:
    """The shell command that makes a throw-away environment with TensorFlow and prepares a set of TFDS in it."""
    # Not `tfds build`: TFDS 4.9.10's command line does not start without Apache Beam.
    packages = ("tensorflow", "tensorflow-datasets", "array_record", "importlib_resources", *dataset.packages)
    accept = ", download_config=tfds.download.DownloadConfig(register_checksums=True)" if register_checksums else ""
    return (
        f"python -m venv tfds-env && tfds-env/bin/pip install {' '.join(packages)} && tfds-env/bin/python -c "
        f"\"import tensorflow_datasets as tfds; tfds.builder('{dataset.builder}')"
        f".download_and_prepare(file_format='array_record'{accept})\""
    )


def needs_tensorflow(builder: str) -> bool:
    """Whether TensorFlow is needed to prepare a set: TFDS opens archives with it; a user's own builder need not."""
    import tensorflow_datasets as tfds

    try:
        code: type = tfds.builder_cls(builder.partition("/")[0])
        return code.__module__.startswith("tensorflow_datasets.")
    except tfds.core.DatasetNotFoundError:
        return True


def open_rows(builder: str, expression: str, image: str = "image", data: Path | None = None) -> Rows:
    """Opens a split of a prepared set in TFDS's data folder, or in `data`; leaves what is called `image` encoded."""
    import tensorflow_datasets as tfds

    # TFDS would decode with OpenCV where it is installed and Pillow elsewhere, and their JPEG pixels differ.
    decoders = {image: tfds.decode.SkipDecoding()}
    with quiet():
        rows: Rows = tfds.data_source(
            builder, split=expression, data_dir=data or data_folder(), download=False, decoders=decoders
        )
    return rows


def memory_rows(images: np.ndarray, labels: np.ndarray) -> Rows:
    """Rows of arrays: images uint8 (n, h, w) or (n, h, w, c), labels (n,)."""
    return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]


def invented_rows(count: int, dataset: Dataset) -> Rows:
    """Invents examples of noise, with labels that say nothing about it."""
    random, rows = np.random.Generator(np.random.Philox(0)), []  # the first of many are those of few
    for _ in range(count):
        height, width = random.integers(24, 48, 2) if dataset.size is None else (dataset.size, dataset.size)
        image = random.integers(0, 256, (height, width, dataset.channels), np.uint8)
        labels = random.integers(0, dataset.num_classes, random.integers(4) if dataset.multilabel else None)
        rows.append(dict(zip(dataset.keys, (image, labels), strict=True)))
    return rows


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

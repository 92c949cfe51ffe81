"""The catalogue: cards agree with TFDS and the paper, any set of TFDS has one, and names reach results and figures."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distill_lib import datasets, recipes
from distill_lib.datasets import (
    cards,
    fashion,
    image_folder,
    prepare,
    tfds_sets,
)
from distill_lib.errors import DistillError
from distill_lib.evaluation.metrics import multilabel_accuracy

PHOTOS = ("flowers", "pets", "food", "sun397", "imagenet", "imagenet_v2", "imagenet_real")
PAPER = {  # arXiv 2106.05237, Table 5: train, validation, test
    "flowers": ("train", "validation", "test"),
    "pets": ("train[:90%]", "train[90%:]", "test"),
    "food": ("train[:90%]", "train[90%:]", "validation"),
    "sun397": ("train", "validation", "test"),
    "imagenet": ("train[:98%]", "train[98%:]", "validation"),
}


@pytest.mark.parametrize("name", PAPER)
def test_splits_are_the_papers(name: str) -> None:
    """The numbers of the study can be compared with the paper's only on the same images."""
    assert tuple(datasets.get(name).splits.values()) == PAPER[name]


@pytest.mark.parametrize("name", PHOTOS)
def test_cards_agree_with_tfds(name: str) -> None:
    """Number of classes, channels and keys are those of TFDS's code, and every class has a name."""
    dataset = datasets.get(name)
    image, label = dataset.keys
    features = tfds_sets.read_info(dataset.builder).features
    assert features[image].shape == (None, None, dataset.channels)
    assert len(datasets.class_names(name)) == len(set(datasets.class_names(name))) == dataset.num_classes
    assert dataset.multilabel == (label == "real_label")


def test_sun397_counts_are_those_of_tfds_lists() -> None:
    """TFDS splits the set by three lists; its builder leaves out one training image that cannot be decoded."""
    import tensorflow_datasets as tfds

    folder = Path(tfds.__file__).parent / "image_classification"
    lists = {"train": "tr", "validation": "va", "test": "te"}
    named = {split: (folder / f"sun397_tfds_{part}.txt").read_text().split() for split, part in lists.items()}
    dataset = datasets.get("sun397")
    assert {split: len(paths) for split, paths in named.items()} == dataset.counts
    assert named["train"].count("/t/track/outdoor/sun_aophkoiosslinihb.jpg") == dataset.left_out["train"] == 1


@pytest.mark.parametrize("name", PHOTOS)
def test_download_sizes_are_tfds_own(name: str) -> None:
    """What the data check promises is what TFDS's checksum file says, so that a new release of TFDS is noticed."""
    dataset = datasets.get(name)
    import tensorflow_datasets as tfds

    urls = tfds.builder_cls(dataset.builder.partition("/")[0]).url_infos
    wanted = {"imagenet": (), "imagenet_v2": ("matched-frequency",), "imagenet_real": ("real.json",)}.get(name, ("",))
    sizes = [info.size for url, info in urls.items() if any(part in url for part in wanted)]
    assert sum(sizes) == dataset.download_bytes
    manual = {Path(url).name: info.size for url, info in urls.items()}
    assert all(manual.get(file, size) == size for file, size in dataset.manual_files.items())


def test_names_and_lookup() -> None:
    """A misspelt name is told with the valid ones."""
    assert datasets.names()[:6] == ("fashion", "fashion_teacher", "fashion_mnist", "digits", "patches", "photographs")
    assert datasets.names()[6:] == PHOTOS
    assert datasets.get("flowers").builder == "oxford_flowers102"
    with pytest.raises(DistillError, match=r"unknown dataset 'flower'.*'flowers'.*Valid: fashion, .*tfds:NAME, folder"):
        datasets.get("flower")
    with pytest.raises(DistillError, match="unknown split 'val'.*Valid: train, validation, test"):
        datasets.arrays("fashion", "val")
    with pytest.raises(DistillError, match="unknown split of imagenet_v2 'train'.*Valid: test"):
        datasets.arrays("imagenet_v2", "train", mock=True)


def test_flowers_has_more_test_than_training_images() -> None:
    """It looks swapped, and is right."""
    assert datasets.get("flowers").counts == {"train": 1_020, "validation": 1_020, "test": 6_149}


@pytest.mark.parametrize("dataset", cards.CARDS.values(), ids=list(cards.CARDS))
def test_cards_are_complete(dataset: datasets.Dataset) -> None:
    """Every card says what the data chapter shows."""
    assert dataset.splits.keys() == dataset.counts.keys() and dataset.examples
    assert dataset.licence and dataset.citation and dataset.download_bytes is not None
    assert all(trap.endswith(".") for trap in dataset.traps)


def test_any_set_of_tfds_has_a_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its files the splits are assumed, and the card says so."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    dataset = datasets.get("tfds:cifar10")
    assert dataset.splits == {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    assert (dataset.num_classes, dataset.channels, dataset.size, dataset.counts) == (10, 3, 32, {})
    assert "assumed until the set is prepared" in dataset.traps[0]
    assert datasets.class_names("tfds:imagenette/320px")[0] == "n01440764"
    images, labels, _ = datasets.arrays("tfds:cifar10", "train", mock=True)
    assert images.shape == (64, 32, 32, 3) and labels.max() < 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:cifar1", "unknown TFDS data set 'cifar1'. Did you mean cifar10 or cifar100.*nor prepared in"),
        ("tfds:imagenette/3px", "TFDS cannot open 'imagenette/3px'.*check the config"),
        ("tfds:mnist:3.0.1", "without a version"),
        ("tfds:", "write tfds:NAME"),
        ("tfds:celeb_a", "celeb_a is no set of images with one label each; it holds image: Image, .*attributes"),
        ("tfds:coco", "TFDS cannot open 'coco'.*tensorflow.*choose another set"),
    ],
)
def test_sets_of_tfds_that_cannot_be_used_are_told(name: str, message: str) -> None:
    """One line, and not TFDS's page of all its sets."""
    with pytest.raises(DistillError, match=message) as caught:
        datasets.get(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, ("train[:90%]", "train[90%:]", "test")),
        ({"train": 9, "test": 9}, ("train[:90%]", "train[90%:]", "test")),
        ({"train": 9, "validation": 9}, ("train[:90%]", "train[90%:]", "validation")),
        ({"train": 9, "validation": 9, "test": 9}, ("train", "validation", "test")),
        ({"train": 9}, ("train[:80%]", "train[80%:90%]", "train[90%:]")),
        ({"train": 9, "unlabelled": 9}, ("train[:80%]", "train[80%:90%]", "train[90%:]")),
    ],
)
def test_splits_of_a_tfds_set(known: dict[str, int], expected: tuple[str, ...]) -> None:
    """No image is in two splits, whatever splits the set has."""
    assert tuple(tfds_sets.split_expressions("a", known).values()) == expected


def test_a_tfds_set_without_train_is_refused() -> None:
    """There is nothing to learn from."""
    with pytest.raises(DistillError, match="imagenet_a has no split `train`, only test"):
        tfds_sets.split_expressions("imagenet_a", {"test": 9})


def test_labels_of_imagenet_real_are_many_or_none() -> None:
    """Random access gives tuples, arrays give rows with a flag a class."""
    source = datasets.load("imagenet_real", "test", limit=5, mock=True, canvas=16)
    tuples = [source.encoded(index).label for index in range(5)]
    hot = datasets.arrays("imagenet_real", "test", 5, mock=True, canvas=16).labels
    assert hot.shape == (5, 1_000) and hot.dtype == bool
    assert [tuple(np.flatnonzero(row)) for row in hot] == tuples
    np.testing.assert_array_equal(source.labels(range(5)), hot)


def test_multilabel_accuracy_leaves_out_what_has_no_label() -> None:
    """Right is any of an image's labels; the third image has none and the fourth is wrong."""
    logits = np.array([[2.0, 1, 0], [0, 1, 2], [1, 0, 0], [0, 3, 1]], np.float32)
    labels = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]], bool)
    assert multilabel_accuracy(logits, labels) == pytest.approx(2 / 3)
    assert np.isnan(multilabel_accuracy(logits, np.zeros_like(labels)))


def test_fashion_mnist_is_all_but_the_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole training file without the images that choose hyper-parameters; judged on the same images as fashion."""
    random = np.random.default_rng(0)
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    images = random.integers(0, 256, (60_000, 2, 2), np.uint8)
    originals = fashion.Originals(images, labels, images[:10_000], labels[:10_000])
    monkeypatch.setattr(fashion, "read_originals", lambda: originals)
    kept, kept_labels = fashion.training_images("fashion_mnist")
    assert len(kept) == datasets.get("fashion_mnist").counts["train"] == 58_980
    held_out = fashion.choose(labels)["validation"]
    np.testing.assert_array_equal(kept, np.delete(images, held_out, axis=0))
    np.testing.assert_array_equal(np.bincount(kept_labels), np.full(10, 5_898))
    validation = datasets.load("fashion_mnist", "validation", limit=3)
    np.testing.assert_array_equal(validation.images(range(3)), datasets.load("fashion", "validation").images(range(3)))


def test_sets_without_a_row_in_the_paper_are_treated_as_pets() -> None:
    """Whatever the name, the settings are a known row of the paper's table; only the teacher is the user's."""
    pets = recipes.get("pets", "medium", teacher="t.npz")
    for name in ("tfds:cifar10", "tfds:mnist"):
        own = recipes.get(name, "medium", teacher="t.npz")
        assert {**vars(own), "dataset": ""} == {**vars(pets), "dataset": ""} and own.dataset == name
        assert recipes.variants(name) == ["fast", "medium", "long", "smoke"]
        assert recipes.get(name, "smoke").teacher == "mock"
        assert recipes.get(name, "fast", policy="labels").has_teacher is False
        with pytest.raises(DistillError, match=f"{name} has no teacher of its own.*-p teacher PATH.npz"):
            recipes.get(name, "fast")
    assert "tfds:cifar10" not in recipes.names()
    assert recipes.variants("fashion_mnist") == ["fast", "medium", "long", "smoke"]


def test_studies_are_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colon or slash would break a folder's name, and two folders of equal name would share their runs."""
    monkeypatch.chdir(tmp_path)

    def study(name: str) -> str:
        return recipes.get(name, "fast", teacher="t.npz").study

    monkeypatch.setattr(image_folder, "scan", lambda root: SimpleNamespace(counts={"train": 16}))

    digest = hashlib.sha256(b"/a/b").hexdigest()[:6]
    assert study("folder:/a/b") == study("folder:/a/b/") == study("folder:/a/./b") == f"folder-b-{digest}_fast"
    assert study("folder:/c/b") != study("folder:/a/b")
    assert study("folder:b") == study(f"folder:{tmp_path / 'b'}")
    assert study("folder:/") == f"folder-{hashlib.sha256(b'/').hexdigest()[:6]}_fast"
    assert study("folder:/a/my pictures!").startswith("folder-my-pictures-")
    assert study("tfds:sun397/standard-part1-120k") == "tfds-sun397-standard-part1-120k_fast"
    assert study("flowers") == "flowers_fast"


def test_a_set_of_tfds_without_code_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user prepared with a builder of their own is opened by name, with the splits and names in its files."""
    shutil.copytree(fashion.DATA / "fashion", tmp_path / "clothes")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    dataset = datasets.get("tfds:clothes")
    assert dataset.splits == {split: split for split in datasets.SPLITS}
    assert dataset.counts == {"train": 1_020, "validation": 1_020, "test": 10_000}
    assert datasets.class_names("tfds:clothes") == datasets.get("fashion").class_names
    assert not datasets.get("tfds:clothes").traps
    np.testing.assert_array_equal(
        datasets.arrays("tfds:clothes", "train", 9).images, datasets.arrays("fashion", "train", 9).images
    )
    assert len(datasets.arrays("tfds:clothes", "train", mock=True).labels) == 64


def test_every_card_is_in_the_book() -> None:
    """In the chapter on data or in its set's notebook; with its splits, sizes, licence, preparation and traps."""
    book = Path(__file__).parents[2] / "book"
    page, notebooks = (book / "data.md").read_text(encoding="utf-8"), book / "experiments"
    for dataset in cards.CARDS.values():
        text = prepare.card_text(dataset)
        own = notebooks / f"{dataset.name}.ipynb"
        there = own.is_file() and "prepare.card_text(datasets.get(dataset))" in own.read_text(encoding="utf-8")
        of_imagenet = dataset.name.startswith("imagenet_")  # in that notebook
        assert there + of_imagenet + page.count(f'\nshow("{dataset.name}")') == 1 or dataset.name == "fashion"
        assert all(f"{count:,}" in text for count in dataset.counts.values())
        assert all(trap in text for trap in dataset.traps) and dataset.licence in text
        assert ("**By hand**" in text) == bool(dataset.manual_files)
        assert ("tfds-env" in text) == (dataset.origin == "tfds")

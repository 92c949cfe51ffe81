"""A user's own pictures: found, split so that the splits stay, refused with one clear line, and really learnt from."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
from picture_files import fill, write

from distill_lib import datasets, recipes, train, weights
from distill_lib.datasets import image_folder
from distill_lib.errors import DistillError


def paths(found: datasets.Dataset) -> dict[str, str]:
    """The split of each picture."""
    return {picture.path: split for split, pictures in found.pictures.items() for picture in pictures}


def test_every_picture_is_in_one_split(tmp_path: Path) -> None:
    """About 80, 10 and 10 %, classes in the order of their names, and the order within a split mixes them."""
    found = image_folder.scan(fill(tmp_path, 300))
    assert found.class_names == ("roses", "tulips") and not found.traps
    assert len(paths(found)) == sum(len(pictures) for pictures in found.pictures.values()) == 600
    shares = {split: len(pictures) / 600 for split, pictures in found.pictures.items()}
    assert 0.75 < shares["train"] < 0.85 and shares["validation"] > 0.06 and shares["test"] > 0.06
    assert all(
        picture.label == found.class_names.index(picture.path.split("/")[0]) for picture in found.pictures["train"]
    )
    assert 15 < sum(picture.label for picture in found.pictures["train"][:60]) < 45


def test_splits_stay_when_pictures_are_added(tmp_path: Path) -> None:
    """A test image that became a training image would make every later result a lie."""
    before = paths(image_folder.scan(fill(tmp_path)))
    fill(tmp_path, 80, ("tulips", "roses", "asters"))
    after = paths(image_folder.scan(tmp_path))
    assert len(after) == 240 and {path: after[path] for path in before} == before


def test_the_splits_of_a_folder_do_not_depend_on_its_place_or_system(tmp_path: Path) -> None:
    """Names are compared in composed form: macOS stores umlauts in two characters, Linux as they were written."""
    composed, decomposed = "Blüte", unicodedata.normalize("NFD", "Blüte")
    here = image_folder.scan(fill(tmp_path / "a", classes=("roses", composed)))
    there = image_folder.scan(fill(tmp_path / "b", classes=("roses", decomposed)))
    assert here.class_names == there.class_names
    assert {unicodedata.normalize("NFC", path): split for path, split in paths(there).items()} == paths(here)


def test_the_split_is_the_same_for_ever(tmp_path: Path) -> None:
    """Committed results on a folder hold only as long as this does."""
    found = paths(image_folder.scan(fill(tmp_path, 20)))
    assert sorted(path for path, split in found.items() if split != "train") == [
        "roses/12.png",
        "roses/16.png",
        "roses/17.png",
        "roses/2.png",
        "roses/6.png",
        "roses/9.png",
        "tulips/12.png",
        "tulips/13.png",
        "tulips/19.png",
        "tulips/2.png",
    ]


def test_few_pictures_take_turns_so_that_no_split_and_no_class_is_empty(tmp_path: Path) -> None:
    """Ten pictures are too few for tenths by a hash; every class is learnt, and the rule says how."""
    few = ("oaks", "elms")
    found = image_folder.scan(fill(tmp_path / "all", 5, few))
    counts = {split: Counter(picture.label for picture in found.pictures[split]) for split in datasets.SPLITS}
    assert counts == {"train": {0: 3, 1: 3}, "validation": {0: 1, 1: 1}, "test": {0: 1, 1: 1}}
    assert found.splits["train"] == "pictures of each class in turns, since they are few"
    fill(tmp_path / "given" / "train", 3, few)
    fill(tmp_path / "given" / "test", 1, few)
    given = image_folder.scan(tmp_path / "given")
    assert {split: len(pictures) for split, pictures in given.pictures.items()} == {
        "train": 4,
        "validation": 2,
        "test": 2,
    }
    assert given.splits["train"].startswith("as given by train/ and test/; validation: pictures of each class in turns")


@pytest.mark.parametrize("name", ["val", "validation"])
def test_given_splits_are_used(tmp_path: Path, name: str) -> None:
    """Folders train, val and test are taken as they are."""
    for part, number in (("train", 5), (name, 3), ("test", 2)):
        fill(tmp_path / part, number)
    found = image_folder.scan(tmp_path)
    assert {split: len(pictures) for split, pictures in found.pictures.items()} == {
        "train": 10,
        "validation": 6,
        "test": 4,
    }
    assert all(path.startswith(("train/", f"{name}/", "test/")) for path in paths(found))


@pytest.mark.parametrize(("given", "absent"), [("val", "test"), ("test", "validation")])
def test_an_absent_split_is_a_tenth_of_train(tmp_path: Path, given: str, absent: str) -> None:
    """Training never sees the images that it is judged on, and the card says where they come from."""
    fill(tmp_path / "train", 50)
    fill(tmp_path / given, 3)
    found = image_folder.scan(tmp_path)
    assert len(paths(found)) == 106 and 3 <= len(found.pictures[absent]) <= 20
    assert all(picture.path.startswith("train/") for picture in found.pictures[absent])
    assert found.splits["train"] == f"as given by train/ and {given}/; {absent}: 10 % of train by a hash of each path"
    assert datasets.get(f"folder:{tmp_path}").splits["train"] == found.splits["train"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Only train with one of the others beside it is a split."""
    assert image_folder.scan(fill(tmp_path, classes=("train", "bus"))).class_names == ("bus", "train")


def test_what_is_no_picture_is_counted_once(tmp_path: Path) -> None:
    """Hidden files, notes and thumbnails are no error, and the card says how many were left out."""
    fill(tmp_path)
    for name in ("README.txt", ".DS_Store", "roses/Thumbs.db", "roses/.hidden.png", "roses/.cache/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    write(tmp_path / "roses" / "deep" / "1.JPG")
    found = image_folder.scan(tmp_path)
    assert found.traps[0].startswith("4 files") and len(paths(found)) == 81 and "roses/deep/1.JPG" in paths(found)
    assert datasets.get(f"folder:{tmp_path}").traps[0].startswith("4 files are not counted")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "has 0 class folders, and at least 2 are needed"),
        (("roses/1.png",), "has 1 class folders"),
        (("1.png", "2.png"), "has 0 class folders"),
        (("roses/1.png", "tulips/notes.txt"), "class 'tulips' has no pictures in .*tulips: add some"),
        (("roses/1.png", "tulips/1.png"), "the (validation|test) split of .* is empty"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png", "test/c/1.png"), "test/c is a class that has no training"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.txt", "test/a/1.png"), "the validation split of .* is empty"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    """One line that names the folder and what to do."""
    for name in files:
        write(tmp_path / name) if name.endswith("png") else (
            (tmp_path / name).parent.mkdir(parents=True),
            (tmp_path / name).write_text(""),
        )
    with pytest.raises(DistillError, match=message) as caught:
        datasets.get(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With the path as it was understood."""
    with pytest.raises(DistillError, match=f"there is no folder {tmp_path / 'x'}"):
        datasets.load(f"folder:{tmp_path}/y/../x", "train")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_names_need_not_be_unicode(tmp_path: Path) -> None:
    """Archives of other systems leave such names behind."""
    fill(tmp_path)
    (tmp_path / "roses" / "0.png").rename(tmp_path / "roses" / os.fsdecode(b"\xe9.png"))
    assert len(paths(image_folder.scan(tmp_path))) == 80 and datasets.fingerprint(f"folder:{tmp_path}")


def test_the_fingerprint_follows_the_pictures(tmp_path: Path) -> None:
    """A finished run may be reused only while its pictures are the same."""
    name = f"folder:{fill(tmp_path)}"
    first = datasets.fingerprint(name)
    assert first == datasets.fingerprint(name) and len(first) == 8 and datasets.fingerprint("flowers") == ""
    (tmp_path / "notes.txt").write_text("no picture")
    assert datasets.fingerprint(name) == first
    write(tmp_path / "roses" / "more.png")
    assert datasets.fingerprint(name) != first


def test_pictures_are_read_by_name(tmp_path: Path) -> None:
    """Bytes as they are on disk, with the path inside the folder; a broken or vanished picture is named."""
    source = datasets.load(f"folder:{fill(tmp_path)}", "train", canvas=12)
    image, label, name = source.encoded(0)
    assert image == (tmp_path / name).read_bytes() and source.dataset.class_names[label] == name.split("/")[0]
    assert source.images([0, 1]).shape == (2, 12, 12, 3)
    (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(DistillError, match=f"image 0 of folder:.* train, {name}, cannot be decoded.*replace or remove"):
        source[0]
    (tmp_path / name).unlink()
    with pytest.raises(DistillError, match=f"{name} cannot be read"):
        source[0]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Pieces of two photographs, as JPEGs of various sizes: what is of the palace, and what of the flower?"""
    from sklearn.datasets import load_sample_image

    random = np.random.default_rng(0)
    for name, photo in (("flower", "flower.jpg"), ("palace", "china.jpg")):
        pixels = load_sample_image(photo)
        for index in range(60):
            height, width = random.integers(60, 140, 2)
            top, left = random.integers(0, 427 - height), random.integers(0, 640 - width)
            write(tmp_path / "photographs" / name / f"{index}.jpg", pixels[top : top + height, left : left + width])
    return tmp_path / "photographs"


@pytest.mark.slow
def test_a_student_learns_from_photographs(photographs: Path, tmp_path: Path, tiny_models: None) -> None:
    """From a folder to a record without a line of code: first from labels, then that network teaches the next."""
    settings = {
        "student": tiny.STUDENT,
        "batch_size": 16,
        "resolution": tiny.SIDE,
        "warmup_steps": 2,
        "evaluations": 2,
        "learning_rate": 3e-2,
    }
    name = f"folder:{photographs}"
    first = train.fit(recipes.get(name, "fast", policy="labels", epochs=8, **settings), tmp_path / "results")
    second = train.fit(
        recipes.get(name, "fast", teacher=str(first.directory / "student.npz"), epochs=8, **settings),
        tmp_path / "results",
    )
    assert first.directory.parent.name.startswith("folder-photographs-")
    assert second.directory.parent == first.directory.parent
    assert not first.record["mock"] and first.record["result"]["train_top1"] > 0.7
    assert second.rows[-1]["loss"] < second.rows[0]["loss"] / 2
    assert second.record["result"]["train_agreement"] > 0.8
    assert weights.load_npz(second.directory / "student.npz")


@pytest.mark.slow
def test_a_folder_runs_on_mock_data_too(tmp_path: Path, tiny_models: None) -> None:
    """The smoke variant needs the folder's classes, and none of its pixels."""
    teacher = weights.save_npz
    teacher(tmp_path / "t.npz", tiny.random_params(tiny.STUDENT, 2, channels=3), {"model": tiny.STUDENT})
    recipe = recipes.get(
        f"folder:{fill(tmp_path / 'pictures')}",
        "smoke",
        student=tiny.STUDENT,
        teacher=str(tmp_path / "t.npz"),
        resolution=tiny.SIDE,
        epochs=1,
    )
    for picture in (tmp_path / "pictures").rglob("*.png"):
        picture.write_bytes(b"not read")
    run = train.fit(recipe, tmp_path / "results")
    assert run.record["mock"] and Counter(run.directory.parent.name)["_"] == 1

"""The data check and preparing: what is found is told truly, and what to do is told exactly."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny

from distill_lib import cli, datasets, recipes, train, weights
from distill_lib.datasets import cards, fashion, prepare, tfds_sets
from distill_lib.errors import DistillError

INSTALLED = ("fashion", "digits", "patches", "photographs")  # part of this package, or of others


class NonMatchingChecksumError(Exception):
    """Named as TFDS's own, which derives from the same class."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TFDS data folder, and no original Fashion-MNIST files."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DISTILL_FASHION_ORIGINALS", str(tmp_path / "originals"))
    return tmp_path


@pytest.fixture
def clothes(data: Path) -> Path:
    """A prepared set that only its files describe."""
    shutil.copytree(fashion.DATA / "fashion", data / "clothes")
    return data / "clothes" / fashion.VERSION


def test_what_is_there_is_present(clothes: Path) -> None:
    """With its number of images, and where it lies."""
    assert datasets.status("fashion").lines() == (f"fashion: present, 12,040 images, in {fashion.DATA / 'fashion'}.",)
    found = datasets.status("tfds:clothes")
    assert found.present and found.lines() == (f"tfds:clothes: present, 12,040 images, in {clothes}.",)


def test_images_of_packages_are_there_with_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is prepared; where the packages are absent, the command that installs them is told."""
    assert datasets.status("digits").present and datasets.status("patches").present
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    found = datasets.status("digits")
    assert found.state == "absent" and "sklearn cannot be imported" in found.problem
    assert "pip install scikit-image scikit-learn" in found.lines()[1]


@pytest.mark.parametrize("name", [name for name in datasets.names() if name not in INSTALLED])
def test_what_is_absent_is_told_with_place_size_and_command(name: str, data: Path) -> None:
    """Two lines: what is missing and where it was looked for, and a command that can be copied."""
    found = datasets.status(name)
    assert found.state == "absent" and not found.present
    first, second = found.lines()
    dataset = datasets.get(name)
    assert first.startswith(f"{name}: absent: ") and str(data) in first and f"{dataset.examples:,} images" in first
    assert prepare.size_text(dataset.download_bytes) in first and "\n" not in first + second
    by_tfds = f"tfds.builder('{dataset.builder}').download_and_prepare(file_format='array_record')"
    by_hand = "`apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb fm && export "
    assert {"tfds": by_tfds, "originals": by_hand}[dataset.origin] in second


def damage(kind: str, folder: Path) -> None:
    """Damages a prepared set in one of the ways that happen."""
    info, shard = folder / "dataset_info.json", next(folder.glob("fashion-train*"))
    if kind == "shard":
        shard.unlink()
    elif kind == "truncated":
        shard.write_bytes(shard.read_bytes()[:300_000])
    elif kind == "format":
        info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    elif kind == "records":
        shutil.copy(next(folder.glob("fashion-test*")), shard)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shard", "1 of 3 shards are missing in .*, the first is fashion-train.array_record-00000-of-00001"),
        ("truncated", "fashion-train.array_record-00000-of-00001 is damaged"),
        ("format", "is not prepared as array_record in .* but as tfrecord"),
        ("records", "fashion-train.array_record-00000-of-00001 is damaged"),
    ],
)
def test_what_is_incomplete_is_told(kind: str, message: str, clothes: Path) -> None:
    """Before a training of hours stumbles over it, with the folder that has to go."""
    damage(kind, clothes)
    found = datasets.status("tfds:clothes")
    assert found.state == "incomplete" and f"Delete {clothes}, or set TFDS_DATA_DIR" in found.lines()[1]
    with pytest.raises(DistillError, match=message):
        prepare.prepare("tfds:clothes")


def test_another_number_of_images_is_incomplete(clothes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after preparing ImageNet with one of its two tar files."""
    facts = {"num_classes": 10, "channels": 1, "size": 28, "licence": "", "citation": ""}
    splits, counts = {"train": "train[:90%]"}, {"train": 919}
    card = datasets.Dataset(name="cloth", builder="clothes", splits=splits, counts=counts, **facts)
    monkeypatch.setitem(cards.CARDS, "cloth", card)
    assert "918 instead of 919 train images" in datasets.status("cloth").lines()[0]
    monkeypatch.setitem(cards.CARDS, "cloth", datasets.Dataset(**vars(card) | {"splits": {"train": "lessons"}}))
    assert "holds no split lessons" in datasets.status("cloth").lines()[0]


def test_a_damaged_embedded_set_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package itself is broken then."""
    shutil.copytree(fashion.DATA / "fashion", tmp_path / "fashion")
    next((tmp_path / "fashion").rglob("fashion-train*")).write_bytes(b"")
    monkeypatch.setattr(fashion, "DATA", tmp_path)
    found = datasets.status("fashion")
    assert found.state == "incomplete" and "Install this package again" in found.remedy


def test_imagenet_is_told_file_by_file(data: Path) -> None:
    """The two tar files, where they have to lie, and whether they do."""
    manual = data / "downloads" / "manual"
    hints = datasets.status("imagenet").hints
    assert hints[0] == f"ILSVRC2012_img_train.tar (137.7 GiB): is missing, in {manual}"
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_val.tar").write_bytes(bytes(2048))
    assert datasets.status("imagenet").hints[1] == f"ILSVRC2012_img_val.tar (6.3 GiB): has 2 KiB instead, in {manual}"
    with pytest.raises(DistillError, match=f"imagenet needs ILSVRC2012_img_train.tar in {manual}.*image-net.org"):
        prepare.prepare("imagenet")


def test_folders_are_checked(tmp_path: Path) -> None:
    """A folder of pictures needs no preparing, but may be wrong."""
    found = datasets.status(f"folder:{tmp_path / 'x'}")
    assert (found.state, len(found.lines())) == ("absent", 2)
    assert datasets.status(f"folder:{tmp_path}").state == "incomplete"
    with pytest.raises(DistillError, match="is not prepared but read as it is"):
        prepare.prepare(f"folder:{tmp_path}")


def test_the_check_of_a_notebook_is_short(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line if all is well, two if not, and on mock data a line that says so."""
    datasets.check("fashion")
    datasets.check("flowers")
    datasets.check("pets", mock=True)
    fine, absent, command, mock = capsys.readouterr().out.splitlines()
    assert "fashion: present" in fine and "flowers: absent" in absent and "tfds-env" in command
    assert mock == "pets: absent, and not needed: mock data (made-up images) are used, and the records say so."


def test_the_command_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 only if all is there; an unknown name is one line on stderr."""
    assert cli.main(["data", "check", "fashion"]) == 0
    assert cli.main(["data", "check", "fashion", "flowers"]) == 1
    assert "Note: The host (VGG, Oxford)" in capsys.readouterr().out
    assert cli.main(["data", "check"]) == 1
    found = capsys.readouterr().out
    assert all(f"\n{name}: " in f"\n{found}" for name in datasets.names())
    assert cli.main(["data", "check", "flower"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: unknown dataset 'flower'. Did you mean 'flowers'?") and error.count("\n") == 1
    assert cli.main(["data", "prepare", "fashion"]) == 0


@pytest.mark.parametrize(
    "name", [card.name for card in cards.CARDS.values() if card.origin == "tfds" and not card.manual_files]
)
def test_tensorflow_is_asked_for_before_anything_is_downloaded(name: str, data: Path) -> None:
    """TFDS itself would download for an hour and then fail: all the builders open archives with TensorFlow."""
    builder = datasets.get(name).builder
    with pytest.raises(DistillError, match="throw-away environment") as caught:
        prepare.prepare(name)
    assert "\n" not in str(caught.value) and f"tfds.builder('{builder}')" in str(caught.value)
    assert not any(data.iterdir())
    with pytest.raises(DistillError, match="register_checksums=True"):
        prepare.prepare(name, register_checksums=True)


class Clothes:
    """Makes a TFDS builder of 71 training and 64 test images of the embedded set, which needs no TensorFlow."""

    @staticmethod
    def builder(data: Path, broken: Exception | None = None) -> Any:
        import tensorflow_datasets as tfds

        class Clothes(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
            VERSION = tfds.core.Version("1.0.0")
            RELEASE_NOTES: ClassVar = {"1.0.0": "First."}

            def _info(self) -> Any:
                features = {
                    "picture": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "kind": tfds.features.ClassLabel(names=list(cards.CARDS["fashion"].class_names)),
                    "file_name": tfds.features.Text(),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("picture", "kind"),
                    citation="ours",
                )

            def _split_generators(self, dl_manager: Any) -> Any:
                return {"train": self._generate_examples("train", 71), "test": self._generate_examples("test", 64)}

            def _generate_examples(self, split: str, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
                source = datasets.load("fashion", split)
                for index in range(number):
                    image, label, _ = source.encoded(index)
                    if broken:
                        raise broken
                    yield index, {"picture": io.BytesIO(image), "kind": label, "file_name": f"{split}_{index}.png"}

        return Clothes(data_dir=data)


def prepare_clothes(data: Path) -> None:
    """Prepares the set as TFDS does: shuffled, as array_record."""
    Clothes.builder(data).download_and_prepare(file_format="array_record")


def test_a_set_that_was_just_prepared_is_read_by_name(data: Path) -> None:
    """The card comes from the files alone: keys, classes, splits and counts; images are the ones that were put in."""
    prepare_clothes(data)
    dataset = datasets.get("tfds:clothes")
    assert dataset.keys == ("picture", "kind") and dataset.class_names == () and dataset.size == 28
    assert dataset.splits == {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    assert dataset.counts == {"train": 64, "validation": 7, "test": 64}
    assert datasets.class_names("tfds:clothes") == cards.CARDS["fashion"].class_names
    embedded = datasets.arrays("fashion", "train", 71)
    seen = set()
    for split in ("train", "validation"):
        source = datasets.load("tfds:clothes", split)
        for index in range(len(source)):
            pixels, label = source[index]
            row = int(source.encoded(index).name.removeprefix("train_").removesuffix(".png"))
            np.testing.assert_array_equal(pixels, embedded.images[row])
            assert label == embedded.labels[row]
            seen.add(row)
    assert seen == set(range(71)) and datasets.status("tfds:clothes").present


@pytest.mark.slow
def test_a_student_learns_from_a_prepared_set(data: Path, teacher: Path) -> None:
    """From a name on the command line to a record that is not mock, through TFDS's files."""
    prepare_clothes(data)
    recipe = recipes.get(
        "tfds:clothes",
        "fast",
        policy="same/ic",
        student=tiny.STUDENT,
        teacher=str(teacher),
        epochs=3,
        batch_size=16,
        resolution=tiny.SIDE,
        warmup_steps=2,
        evaluations=2,
    )
    run = train.fit(recipe, data / "results")
    assert run.directory.parent.name == "tfds-clothes_fast" and not run.record["mock"]
    assert np.isfinite(run.rows[-1]["loss"]) and run.record["recipe"]["dataset"] == "tfds:clothes"
    assert weights.load_npz(run.directory / "student.npz")


def of_clothes(monkeypatch: pytest.MonkeyPatch, data: Path, broken: Exception | None = None) -> None:
    """Makes TFDS know the set by code, as a user's own builder would."""
    import tensorflow_datasets as tfds

    builder = Clothes.builder(data, broken)
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Clothes.builder(data, broken))
    monkeypatch.setattr(tfds, "builder_cls", lambda name: type(builder))


def test_prepare_runs_tfds_where_it_needs_no_tensorflow(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With TFDS's own progress; a second call finds it done."""
    of_clothes(monkeypatch, data)
    assert "Prepare it: `distill data prepare tfds:clothes`" in datasets.status("tfds:clothes").remedy
    assert cli.main(["data", "prepare", "tfds:clothes"]) == 0
    captured = capfd.readouterr()
    assert "tfds:clothes: present, 135 images" in captured.out and "Generating train examples" in captured.err
    assert prepare.prepare("tfds:clothes").present


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow"), "tensorflow is not installed"),
        (OSError("the disk is full\nvery full"), "TFDS could not prepare tfds:clothes: the disk is full"),
        (AssertionError("manual download needed"), "TFDS could not prepare tfds:clothes: manual download needed"),
        (
            NonMatchingChecksumError("a.tgz has another one"),
            "a.tgz has another one.*delete it from .*--register-checksums",
        ),
    ],
)
def test_what_stops_tfds_is_told_in_one_line(
    broken: Exception, message: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not TFDS's page of traceback; and nothing half-made is taken for a prepared set."""
    of_clothes(monkeypatch, data, broken)
    with pytest.raises(DistillError, match=message) as caught:
        prepare.prepare("tfds:clothes")
    assert "\n" not in str(caught.value)
    assert datasets.status("tfds:clothes").state == "absent"


def test_the_command_names_what_a_builder_needs() -> None:
    """Flowers' labels are MATLAB files, SUN's images are made smaller with OpenCV."""
    assert "importlib_resources scipy &&" in tfds_sets.command(datasets.get("flowers"))
    assert "importlib_resources opencv-python-headless &&" in tfds_sets.command(datasets.get("sun397"))
    assert tfds_sets.needs_tensorflow("cifar10") and tfds_sets.needs_tensorflow("nobody_knows_it")


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "an unknown size"), (0, "nothing"), (2048, "2 KiB"), (5 * 2**20, "5 MiB"), (2**32, "4.0 GiB")],
)
def test_sizes_in_words(number: int | None, text: str) -> None:
    """Rounded to what one plans a disk with."""
    assert prepare.size_text(number) == text

"""The embedded set is what its card says, and is built the same, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import fashion_build

from distill_lib import datasets
from distill_lib.datasets import fashion
from distill_lib.errors import DistillError

FOLDER = fashion.DATA / "fashion"


def have_originals() -> bool:
    return fashion.folder().is_dir()


needs_originals = pytest.mark.skipif(not have_originals(), reason="the original Fashion-MNIST files are not here")


def shipped(split: str) -> fashion_build.Part:
    """A split of the embedded set, as it went in."""
    import tensorflow_datasets as tfds

    rows = list(tfds.data_source("fashion", split=split, data_dir=fashion.DATA))
    images = np.stack([row["image"][..., 0] for row in rows])
    labels, numbers = (np.array([row[key] for row in rows]) for key in ("label", "index"))
    return fashion_build.Part(images, labels, numbers)


@pytest.fixture(scope="module")
def parts() -> dict[str, fashion_build.Part]:
    return {split: shipped(split) for split in datasets.SPLITS}


def few(parts: dict[str, fashion_build.Part], count: int = 3) -> dict[str, fashion_build.Part]:
    return {split: fashion_build.Part(*(column[:count] for column in part)) for split, part in parts.items()}


@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
@settings(deadline=None, max_examples=25)
def test_choice_parts_the_rows_and_takes_the_classes_in_turn(seed: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.repeat(np.arange(10), 204), rng.integers(0, 10, more)]))
    rows = fashion.choose(labels)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(len(labels)))
    for split in ("train", "validation"):
        np.testing.assert_array_equal(labels[rows[split]], np.tile(np.arange(10), 102))
    for label in range(10):
        of_class = np.flatnonzero(labels == label)
        chosen = np.concatenate([rows["train"][label::10], rows["validation"][label::10]])
        np.testing.assert_array_equal(chosen, of_class[:204])


def test_shipped_rows_belong_to_one_split_only(parts: dict[str, fashion_build.Part]) -> None:
    train, validation = parts["train"].rows, parts["validation"].rows
    assert len(np.union1d(train, validation)) == 2_040
    for label in range(10):  # validation goes on where train stops, class by class
        in_turn = np.concatenate([train[label::10], validation[label::10]])
        assert (np.diff(in_turn) > 0).all()
    np.testing.assert_array_equal(parts["test"].rows, np.arange(10_000))


def test_no_image_is_shipped_twice(parts: dict[str, fashion_build.Part]) -> None:
    images = np.concatenate([part.images for part in parts.values()])
    assert len({image.tobytes() for image in images}) == 12_040


def test_folder_is_small_and_brings_card_and_licence() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 8_000_000
    assert "Zalando SE" in (FOLDER / "LICENSE").read_text(encoding="utf-8")
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(version in card for version in fashion_build.BUILT_WITH.values())
    assert sorted(fashion.read_sums(FOLDER / fashion.SUMS)) == sorted(fashion.FILES)


@pytest.mark.slow
def test_writing_the_shipped_images_again_gives_the_same_bytes(
    parts: dict[str, fashion_build.Part], tmp_path: Path
) -> None:
    again = fashion_build.write(parts, tmp_path)
    rebuilt, given = (fashion.read_sums(folder / fashion.SUMS) for folder in (again, FOLDER))
    if rebuilt != given:  # then other encoders must be to blame, and pixels equal
        assert fashion_build.built_with() != fashion_build.BUILT_WITH
        assert fashion_build.same_contents(tmp_path, fashion.DATA)


def test_what_is_written_is_read_back(parts: dict[str, fashion_build.Part], tmp_path: Path) -> None:
    fashion_build.write(few(parts), tmp_path / "a")
    fashion_build.write(few(parts), tmp_path / "b")
    fashion.check(tmp_path / "a")
    assert fashion_build.same_contents(tmp_path / "a", tmp_path / "b")
    with pytest.raises(DistillError, match="exists: delete it, or choose another folder"):
        fashion_build.write(few(parts), tmp_path / "a")


def test_verify_tells_equal_recoded_and_different(
    parts: dict[str, fashion_build.Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fashion_build.write(few(parts), tmp_path).parent
    monkeypatch.setattr(fashion_build, "build", lambda source, out: fashion_build.write(few(parts), out))
    assert "6 files equal the rebuilt ones, byte for byte" in fashion_build.verify(None, data)
    with monkeypatch.context() as patch:
        patch.setattr(fashion_build, "DESCRIPTION", "Another description.")
        with pytest.raises(
            DistillError, match="all pixels, labels and rows are equal, but not the bytes of 1.0.0/dataset"
        ):
            fashion_build.verify(None, data)
    monkeypatch.setattr(fashion_build, "build", lambda source, out: fashion_build.write(few(parts, 2), out))
    with pytest.raises(DistillError, match="holds other images, labels or rows"):
        fashion_build.verify(None, data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "cannot read .*fashion-train.array_record-00000-of-00001"),
        ("truncated", "fashion-train.array_record-00000-of-00001 differs from SHA256SUMS"),
        ("flipped", "differs from SHA256SUMS"),
        ("no sums", "SHA256SUMS or a file that it lists is missing or damaged"),
        ("empty sums", "differs from SHA256SUMS"),
        ("broken sums", "SHA256SUMS or a file that it lists is missing or damaged"),
    ],
)
def test_a_folder_that_does_not_match_its_card_is_refused(
    damage: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FOLDER, tmp_path / "fashion")
    shard, sums = tmp_path / "fashion" / fashion.FILES[3], tmp_path / "fashion" / fashion.SUMS
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(content[:1000])
    elif damage == "flipped":
        shard.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "no sums":
        sums.unlink()
    else:
        sums.write_text("" if damage == "empty sums" else "e3b0c44298fc\n")
    monkeypatch.setattr(fashion, "DATA", tmp_path)
    with pytest.raises(DistillError, match=f"array_record that does not match its card.*{message}") as caught:
        datasets.load("fashion", "train")
    assert "\n" not in str(caught.value)


def test_command_line_tells_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fashion_build.main(["build", "--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the original Fashion-MNIST file") and error.count("\n") == 1
    with pytest.raises(SystemExit):
        fashion_build.main(["build"])
    assert "build needs --out DIR" in capsys.readouterr().err


@needs_originals
def test_the_teachers_images_are_all_the_others(parts: dict[str, fashion_build.Part]) -> None:
    everything = fashion_build.parts(fashion.read_originals())
    for split in datasets.SPLITS:
        for ours, theirs in zip(parts[split], everything[split], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    teacher = datasets.arrays("fashion_teacher", "train")
    assert teacher.images.shape == (57_960, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(teacher.labels), np.full(10, 5_796))
    students = {image.tobytes() for split in datasets.SPLITS for image in parts[split].images}
    assert not any(image.tobytes() in students for image in teacher.images)


@needs_originals
def test_command_line_verifies_the_shipped_set() -> None:
    done = subprocess.run([sys.executable, fashion_build.__file__, "verify"], capture_output=True, text=True)
    assert "byte for byte" in done.stdout, done.stderr

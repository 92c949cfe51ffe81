"""Checkpoints: what is read is what was written, and a damaged file is told in one line."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from distill_lib import weights
from distill_lib.errors import DistillError


@pytest.fixture
def params() -> dict:
    """A small tree with several levels and kinds of numbers."""
    numbers = np.random.default_rng(0)
    return {
        "root_block": {"conv_root": {"kernel": numbers.normal(size=(3, 3, 1, 4)).astype(np.float32)}},
        "norm-pre-head": {"scale": np.ones((1, 1, 1, 4), np.float32)},
        "head": {"bias": np.array([1e-38, -0.0, 3.0], np.float32), "count": np.int32(7)},
    }


def assert_same(ours: dict, theirs: dict) -> None:
    """Equal names, dtypes and bits."""
    ours, theirs = weights.flatten(ours), weights.flatten(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert np.asarray(value).dtype == theirs[name].dtype, name
        assert np.asarray(value).tobytes() == theirs[name].tobytes(), name


def one_line(caught: pytest.ExceptionInfo, path: Path) -> None:
    """The error is one line and names the file."""
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_round_trip_keeps_every_bit(tmp_path: Path, params: dict) -> None:
    """Names, shapes, dtypes and bits; metadata travels beside and is no parameter."""
    path = tmp_path / "new" / "folder" / "student.npz"
    weights.save_npz(path, params, {"model": "bit_r11w8", "classes": 10})
    assert_same(params, weights.load_npz(path))
    assert weights.load_metadata(path) == {"model": "bit_r11w8", "classes": 10}
    assert os.listdir(path.parent) == ["student.npz"]


def test_device_arrays_are_written_like_numpy_arrays(tmp_path: Path, params: dict) -> None:
    """A student's parameters come as JAX arrays."""
    weights.save_npz(tmp_path / "numpy.npz", params)
    weights.save_npz(tmp_path / "jax.npz", jax.tree.map(jax.numpy.asarray, params))
    assert (tmp_path / "numpy.npz").read_bytes() == (tmp_path / "jax.npz").read_bytes()


def test_equal_parameters_give_equal_bytes(tmp_path: Path, params: dict) -> None:
    """No time stamp and no dict order of metadata inside: a hash of the file identifies the teacher."""
    weights.save_npz(tmp_path / "a.npz", params, {"a": 1, "b": 2})
    os.utime(tmp_path / "a.npz", (0, 0))
    weights.save_npz(tmp_path / "b.npz", params, {"b": 2, "a": 1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert weights.sha256(tmp_path / "a.npz") == hashlib.sha256((tmp_path / "b.npz").read_bytes()).hexdigest()
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_checkpoint_without_metadata_has_none(tmp_path: Path, params: dict) -> None:
    """Files of others are plain .npz."""
    np.savez(tmp_path / "plain.npz", **weights.flatten(params))
    assert weights.load_metadata(tmp_path / "plain.npz") == {}
    assert_same(params, weights.load_npz(tmp_path / "plain.npz"))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    """A checkpoint from the network must not be able to run code."""
    marker, path = tmp_path / "was_run", tmp_path / "evil.npz"

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (marker,)

    np.savez(path, **{"head/kernel": np.array([Evil()], dtype=object)})
    with pytest.raises(DistillError, match="pickled objects, which are never loaded") as caught:
        weights.load_npz(path)
    one_line(caught, path)
    assert not marker.exists()


def test_an_archive_that_expands_without_end_is_refused(tmp_path: Path) -> None:
    """Before it is expanded: 70 MB of zeros in 70 kB. Small files may be of zeros, as an untrained head."""
    path = tmp_path / "bomb.npz"
    weights.save_npz(path, {"head": {"kernel": np.zeros(2**24 + 2**20, np.float32)}})
    with pytest.raises(DistillError, match="would expand from 0.1 to 68 MiB, which no checkpoint does") as caught:
        weights.load_npz(path)
    one_line(caught, path)
    weights.save_npz(path, {"head": {"kernel": np.zeros(2**20, np.float32)}})
    assert not weights.load_npz(path)["head"]["kernel"].any()


def test_a_member_that_is_no_array_is_told(tmp_path: Path) -> None:
    """An .npz is an archive, which can hold anything."""
    path = tmp_path / "student.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("head/kernel.npy", b"hello")
    with pytest.raises(DistillError, match="head/kernel is no array; get a plain .npz") as caught:
        weights.load_npz(path)
    one_line(caught, path)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: dict) -> None:
    """Nothing is wrong with the file, and to get it again would not help."""
    path = tmp_path / "student.npz"
    weights.save_npz(path, params)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(
        DistillError, match=r"cannot read .* \(Permission denied\); check the path and its perm"
    ) as caught:
        weights.load_npz(path)
    one_line(caught, path)


def test_a_text_holds_no_pickled_objects() -> None:
    """NumPy takes whatever it does not know for a pickle."""
    with pytest.raises(DistillError, match=f"{__file__} is truncated or not an .npz"):
        weights.load_npz(__file__)


def test_facts_that_never_end_are_told(tmp_path: Path) -> None:
    """JSON that is nested deeper than Python goes."""
    np.savez(tmp_path / "deep.npz", __metadata__=np.array("[" * 100_000))
    with pytest.raises(DistillError, match="what it says of itself is no JSON"):
        weights.load_metadata(tmp_path / "deep.npz")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """And so is a folder in its place."""
    for path in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(DistillError, match="no checkpoint at") as caught:
            weights.load_npz(path)
        one_line(caught, path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", b"\x93NUMPY\x01", b"hello", b"\x80\x04]"])
def test_a_file_that_is_no_npz_is_told(tmp_path: Path, content: bytes) -> None:
    """Empty, cut off, text, the start of a pickle."""
    path = tmp_path / "student.npz"
    path.write_bytes(content)
    with pytest.raises(DistillError, match="again|never loaded") as caught:
        weights.load_npz(path)
    one_line(caught, path)


def test_an_npy_is_no_npz(tmp_path: Path) -> None:
    """A lone array under the name of a checkpoint."""
    path = tmp_path / "student.npz"
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DistillError, match="not an .npz") as caught:
        weights.load_npz(path)
    one_line(caught, path)


def test_a_truncated_file_is_told_wherever_it_ends(tmp_path: Path, params: dict) -> None:
    """An interrupted download."""
    path = tmp_path / "student.npz"
    weights.save_npz(path, params, {"model": "bit_r11w8"})
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(DistillError, match="again") as caught:
            weights.load_npz(path)
        one_line(caught, path)


def test_a_flipped_byte_is_told_or_harmless(tmp_path: Path, params: dict) -> None:
    """Whichever byte of the file is damaged: an error in one line, or the very same numbers; never other numbers."""
    path = tmp_path / "student.npz"
    weights.save_npz(path, params)
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            found = weights.load_npz(path)
        except DistillError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        found = weights.flatten(found)
        for name, value in weights.flatten(params).items():
            assert found[name].tobytes() == np.asarray(value).tobytes()
    assert refused > len(content) / 5 / 2


def test_a_damaged_directory_hides_no_array(tmp_path: Path, params: dict) -> None:
    """A comment that is said to be long takes the place of the names behind it."""
    path = tmp_path / "student.npz"
    weights.save_npz(path, params)
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 33] ^= 0x20  # the higher byte of its length
    path.write_bytes(content)
    with pytest.raises(DistillError, match="members are missing"):
        weights.load_npz(path)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_told(tmp_path: Path, params: dict, number: float) -> None:
    """The broken array is named."""
    path = tmp_path / "student.npz"
    params["head"]["bias"][1] = number
    weights.save_npz(path, params)
    with pytest.raises(DistillError, match="head/bias holds numbers that are not finite") as caught:
        weights.load_npz(path)
    one_line(caught, path)


def test_names_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    """An array `head` beside an array `head/kernel` is no tree."""
    path = tmp_path / "student.npz"
    np.savez(path, **{"head": np.zeros(2), "head/kernel": np.zeros(2)})
    with pytest.raises(DistillError, match="head") as caught:
        weights.load_npz(path)
    one_line(caught, path)


def test_everything_that_does_not_fit_is_listed_at_once(params: dict) -> None:
    """Missing, surplus and misshapen arrays in one error, so that one look tells which model it is."""
    expected = {
        "root_block": params["root_block"],
        "norm-pre-head": {"scale": np.ones((1, 1, 1, 5)), "bias": np.ones((1, 1, 1, 5))},
        "head": {"bias": params["head"]["bias"]},
    }
    with pytest.raises(DistillError) as caught:
        weights.match(params, expected, "teacher.npz")
    assert str(caught.value) == (
        "teacher.npz does not fit the model: missing norm-pre-head/bias; "
        "norm-pre-head/scale has shape (1, 1, 1, 4), not (1, 1, 1, 5); surplus head/count."
    )


def test_what_fits_passes_unchanged(params: dict) -> None:
    """The expected tree may hold shapes only."""
    expected = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    assert weights.match(params, expected, "student.npz") is params


@pytest.mark.parametrize("place", ["file/student.npz", "file/deeper/student.npz"])
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, params: dict, place: str) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DistillError, match="cannot write .*; make room there, make the folder writable or") as caught:
        weights.save_npz(tmp_path / place, params)
    one_line(caught, tmp_path / place)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_file_before(
    tmp_path: Path, params: dict, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A full disk: the earlier checkpoint stays whole, and no half-written file stays behind."""
    path = tmp_path / "student.npz"
    weights.save_npz(path, params)
    before = path.read_bytes()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, failing, no_space)
    with pytest.raises(DistillError, match="No space left on device") as caught:
        weights.save_npz(path, {"head": {"bias": np.zeros(9)}})
    one_line(caught, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["student.npz"]


def test_flatten_and_unflatten_are_inverse(params: dict) -> None:
    """Names are joined with a slash, as in the published files."""
    flat = weights.flatten(params)
    assert "root_block/conv_root/kernel" in flat
    assert_same(params, weights.unflatten(flat))

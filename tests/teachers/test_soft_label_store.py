"""Archives of answers: whole or not there, and refused where they are for another run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from distill_lib.errors import DistillError
from distill_lib.teachers import soft_labels
from distill_lib.teachers.soft_labels import SoftLabels, Store

ABOUT = {"teacher": "abc", "seed": 0, "policy": "mix", "crop_area": (0.25, 1.0), "mixup": None}
BATCH, CLASSES, KEPT = 4, 300, 3


def begun(folder: Path, steps: int, **about) -> Store:
    """A store of three logits, in shards of two steps where it is new."""
    return soft_labels.begin(folder, ABOUT | about, KEPT, steps=steps, num_classes=CLASSES, batch_size=BATCH)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_labels, "SHARD_STEPS", 2)


def said(step: int) -> SoftLabels:
    """Made-up answers of a step."""
    numbers = np.random.default_rng(step)
    logits = -numbers.random((BATCH, KEPT)).astype(np.float16)
    return SoftLabels(logits, numbers.integers(0, CLASSES, (BATCH, KEPT), np.uint16), logits[:, 0] - 1)


def means(step: int) -> np.ndarray:
    """Made-up brightness of a step's views."""
    return np.full(BATCH, step / 100, np.float32)


def filled(store: Store, steps: int) -> Store:
    """The store with all of its steps."""
    while store.steps < steps:
        part = range(store.steps, min(store.steps + 2, steps))
        store = store.add([said(step) for step in part], means(part[0]))
    return store


def assert_holds(store: Store, steps: int) -> None:
    """All steps, with the numbers that were put in."""
    assert store.steps == steps
    for step in range(steps):
        for found, expected in zip(store.read(step), said(step), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Step by step, from another object; the header counts steps, views and bytes."""
    filled(begun(tmp_path, 5), 5)
    store = soft_labels.load(tmp_path)
    assert_holds(store, 5)
    store.require(ABOUT, 5)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.npz"))
    assert store.bytes == size and store.bytes_per_view == size / (5 * BATCH)


def test_writing_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """A shard without its header's word is written again; whole ones are not touched."""
    store = begun(tmp_path, 6)
    store = store.add([said(0), said(1)], means(0))
    kept = (tmp_path / "answers-000000.npz").stat().st_mtime_ns
    (tmp_path / "answers-000001.npz").write_bytes(b"half-writ")
    again = begun(tmp_path, 6)
    assert again.steps == 2
    assert_holds(filled(again, 6), 6)
    assert (tmp_path / "answers-000000.npz").stat().st_mtime_ns == kept


def test_a_kill_leaves_sizes_right(tmp_path: Path) -> None:
    """After the last shard was made again, and before its header was; and in the middle of the very first header."""
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / ".header.json.1.tmp").write_text("{")
    filled(begun(folder, 3), 3)
    begun(folder, 4)
    old = (folder / "header.json").read_bytes()
    filled(begun(folder, 4), 4)
    (folder / "header.json").write_bytes(old)
    filled(begun(folder, 5), 5)
    assert soft_labels.load(folder).bytes == sum(path.stat().st_size for path in folder.glob("*.npz"))


def test_a_store_can_be_lengthened(tmp_path: Path) -> None:
    """A last shard that was not full is made again, and the folder is whole until then."""
    filled(begun(tmp_path, 3), 3)
    assert begun(tmp_path, 3).steps == 3, "nothing to do"
    longer = begun(tmp_path, 5)
    assert longer.steps == 2
    assert_holds(soft_labels.load(tmp_path), 3)
    assert_holds(filled(longer, 5), 5)
    found = soft_labels.load(tmp_path)
    assert found.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.npz"))
    assert found.views == 5 * BATCH


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"seed": 1}, "holds soft labels for seed 0, this run has seed 1: replay with the same, or store"),
        ({"crop_area": (0.05, 1.0)}, r"crop_area \[0.25, 1.0\], this run has crop_area \[0.05, 1.0\]"),
        ({"teacher": "abd"}, "teacher abc, this run has teacher abd"),
        ({"new": 1}, "new None, this run has new 1"),
    ],
)
def test_another_run_is_refused(about: dict, message: str, tmp_path: Path) -> None:
    """By replay and by writing, in one line that names the setting and both values."""
    store = filled(begun(tmp_path, 2), 2)
    for refuse in (lambda: store.require(ABOUT | about, 2), lambda: begun(tmp_path, 2, **about)):
        with pytest.raises(DistillError, match=message) as caught:
            refuse()
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_too_few_steps_are_refused(tmp_path: Path) -> None:
    """A view is a function of its step, so answers cannot be used twice."""
    with pytest.raises(DistillError, match="for 2 steps, this run has 3: choose fewer epochs, or go on storing"):
        filled(begun(tmp_path, 2), 2).require(ABOUT, 3)


@pytest.mark.parametrize("other", [{"about": {"teacher": "abd"}}, {"steps": 4}])
def test_a_shard_of_another_store_is_noticed(other: dict, tmp_path: Path) -> None:
    """Two that wrote into one folder, or files that were moved: of another teacher, or of other steps of the same."""
    store = filled(begun(tmp_path / "a", 4), 4)
    filled(begun(tmp_path / "b", 4, **other.get("about", {})), 4)
    source, place = ("b", 1) if "about" in other else ("a", 0)
    moved = (tmp_path / source / f"answers-{place:06d}.npz").read_bytes()
    (tmp_path / "a" / "answers-000001.npz").write_bytes(moved)
    store.read(0)
    with pytest.raises(
        DistillError, match=r"answers-000001.npz holds other soft labels than header.json says"
    ) as caught:
        store.read(2)
    assert "\n" not in str(caught.value)


def test_other_views_are_noticed(tmp_path: Path) -> None:
    """What no header knows: exchanged pictures, or random numbers that are drawn in another way."""
    store = filled(begun(tmp_path, 4), 4)
    shown = np.broadcast_to(means(2)[:, None, None, None], (BATCH, 3, 3, 1))
    store.check(2, shown)
    store.check(3, shown + 1)  # not the first of its shard
    with pytest.raises(DistillError, match="views of step 2 are not those .* differ by 0.01.*store the soft"):
        store.check(2, shown + 0.01 * (np.arange(BATCH) == 1)[:, None, None, None])


def test_shards_of_one_step_are_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at every step would have host and device wait for each other."""
    monkeypatch.setattr(soft_labels, "SHARD_BYTES", 1)
    store = begun(tmp_path, 5)
    for step in range(5):
        store = store.add([said(step)], means(step))
    assert store.shard_steps == 1
    looks: list[int] = []
    monkeypatch.setattr(soft_labels, "mean_pixels", lambda shown: looks.append(step) or means(step))
    for step in range(5):
        store.check(step, np.zeros(()))
    assert looks == [0, 2, 4]


def test_what_is_no_store_or_a_damaged_one_is_told(tmp_path: Path) -> None:
    """Absent, something else, another number of logits, damaged, of another version, truncated or with a hole."""
    with pytest.raises(DistillError, match=r"no stored soft labels at .*; check the path, or store them first"):
        soft_labels.load(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DistillError, match="holds something else; name an empty folder"):
        begun(tmp_path, 2)
    folder = tmp_path / "answers"
    store = filled(begun(folder, 4), 4)
    with pytest.raises(DistillError, match="keeps 3 logits of each, not 5; name another folder"):
        soft_labels.begin(folder, ABOUT, 5, steps=4, num_classes=CLASSES, batch_size=BATCH)
    shard, header = folder / "answers-000001.npz", folder / "header.json"
    np.savez(shard, means=means(2))
    with pytest.raises(
        DistillError, match="answers-000001.npz holds other soft labels .* delete .* and store them again"
    ):
        store.check(2, np.zeros((BATCH, 3, 3, 1)))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DistillError, match="answers-000001.npz is truncated"):
        store.read(2)
    shard.unlink()
    with pytest.raises(DistillError, match="cannot read .*answers-000001.npz"):
        store.read(2)
    text = header.read_text()
    header.write_text(text.replace('"format": 3', '"format": 2'))
    with pytest.raises(DistillError, match="has format 2, this version reads 3"):
        soft_labels.load(folder)
    for damaged in (text[:50], "[]", text.replace('"steps": 4', '"steps": "4"')):
        header.write_text(damaged)
        with pytest.raises(DistillError, match=r"header.json is damaged; delete .* and store the soft labels again"):
            soft_labels.load(folder)


def test_answers_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    """A broken teacher is told when it is asked, not when somebody learns from it."""
    broken = said(0)
    broken.logits[1, 1] = np.nan
    with pytest.raises(DistillError, match="logits from step 0 on are not finite: mend the teacher"):
        begun(tmp_path, 1).add([broken], means(0))
    assert os.listdir(tmp_path) == ["header.json"]

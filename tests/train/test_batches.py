"""Batches: the same whether images lie on the device or are decoded on the way."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from distill_lib import datasets, recipes, sharding, train
from distill_lib.datasets import decode
from distill_lib.errors import DistillError
from distill_lib.evaluation import metrics as evaluation_metrics
from distill_lib.input_pipeline import sampler
from distill_lib.recipes import Recipe
from distill_lib.train import Run, setup
from distill_lib.train.step import Batch

pytestmark = pytest.mark.usefixtures("tiny_models")

GREY_LEVEL = 2 / 255  # in [-1, 1]


def some(recipe: Recipe, loading: str, start: int = 0, count: int = 5) -> list[Batch]:
    """A few batches from a step on."""
    task = setup.prepare(recipe, loading=loading, workers=0)
    mesh = sharding.data_mesh()
    given = task.batches(start, mesh)
    found = [jax.device_get(batch) for batch in islice(given, count)]
    given.close()
    return found


@pytest.mark.parametrize("policy", ["labels", "labels/mix", "fix/rs", "fix/cc", "ind/ic", "same/rc", "same/ic", "mix"])
def test_streamed_lessons_equal_those_on_the_device(policy: str, teacher: Path) -> None:
    """The same images, crops, mirroring and mixture, to the rounding of crops to grey levels; also across epochs."""
    recipe = tiny.recipe(teacher, policy=policy)
    for ours, theirs in zip(some(recipe, "stream"), some(recipe, "device"), strict=True):
        np.testing.assert_allclose(ours.images, theirs.images, atol=1.01 * GREY_LEVEL / 2 + 1e-5)
        largest = np.abs(theirs.targets).max()
        np.testing.assert_allclose(ours.targets, theirs.targets, atol=0.05 * largest)


def test_a_stream_starts_anywhere(teacher: Path) -> None:
    """A resumed run sees what it would have seen."""
    recipe = tiny.recipe(teacher, policy="mix")
    whole, later = some(recipe, "stream", count=6), some(recipe, "stream", start=4, count=2)
    jax.tree.map(np.testing.assert_array_equal, whole[4:], later)


@pytest.mark.slow
def test_a_student_learns_from_a_stream(teacher: Path, tmp_path: Path) -> None:
    """Whole runs: the losses of both ways agree, and the record says that no image was broken."""
    recipe = tiny.recipe(teacher, policy="mix", epochs=4)
    streamed = train.fit(recipe, tmp_path / "stream", loading="stream", workers=0)
    resident = train.fit(recipe, tmp_path / "device", loading="device")
    assert streamed.record["run_id"] != resident.record["run_id"], "images that are shrunk for memory give other crops"
    kinds = {"bad_images", *(f"{split}_bad_images" for split in ("train", "validation", "test"))}
    assert {streamed.record[kind] for kind in kinds} == {0} and not kinds & resident.record.keys()
    for ours, theirs in zip(streamed.rows, resident.rows, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=0.1)
    assert streamed.record["result"].keys() == resident.record["result"].keys()


def test_broken_images_are_counted(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told once each with its name, replaced, and counted in the record."""
    sound = decode.sides

    def sides(image: bytes | np.ndarray) -> tuple[int, int]:
        if np.asarray(image).sum() % 13 == 0:
            raise decode.ImageError("made up")
        return sound(image)

    monkeypatch.setattr(decode, "sides", sides)
    run = train.fit(tiny.recipe(teacher, epochs=4), tmp_path, loading="stream", workers=0)
    assert isinstance(run, Run) and run.record["bad_images"] > 0
    told = [line for line in capsys.readouterr().err.splitlines() if "cannot be decoded (made up)" in line]
    assert len(told) == len(set(told)) == run.record["bad_images"]
    with pytest.raises(DistillError, match=r"cannot be decoded \(made up\): replace the file"):
        train.fit(tiny.recipe(teacher, epochs=5), tmp_path, loading="stream", workers=0, on_bad_image="raise")


def test_broken_images_of_exams_are_counted_and_left_out(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of student and teacher alike: the result is that of both networks' answers to the other images."""
    recipe, sound = tiny.recipe(teacher, epochs=4), decode.evaluation
    expected = train.fit(recipe, tmp_path / "whole", loading="stream", workers=0)
    broken = datasets.load("fashion", "test", mock=True).encoded(5).image

    def evaluation(image: np.ndarray, *sizes: int) -> np.ndarray:
        if np.array_equal(image, broken):
            raise decode.ImageError("made up")
        return sound(image, *sizes)

    task = setup.prepare(recipe, loading="stream", workers=0)
    kept = np.arange(len(task.eval_sets["test"].labels)) != 5
    said, wanted = task.output("test", expected.variables)[kept], task.output("test")[kept]
    monkeypatch.setattr(decode, "evaluation", evaluation)
    run = train.fit(recipe, tmp_path, loading="stream", workers=0)
    assert [run.record[f"{split}_bad_images"] for split in ("train", "validation", "test")] == [1, 1, 1]  # alike
    metrics = evaluation_metrics.metrics(said, task.eval_sets["test"].labels[kept], wanted)
    for name, value in metrics.items():
        np.testing.assert_allclose(run.record["result"][f"test_{name}"], value, rtol=1e-5, err_msg=name)
    assert run.record["result"]["test_kl"] != expected.record["result"]["test_kl"]
    assert run.record["result"]["test_cka"] != expected.record["result"]["test_cka"]


def test_a_fixed_teacher_says_of_each_image_shown_what_it_said_of_that_one(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an image stands in for a broken one, which has no outputs that make sense."""
    recipe, sound = tiny.recipe(teacher, policy="fix/cc"), decode.sides
    (before,) = some(recipe, "stream", count=1)
    task = setup.prepare(recipe, loading="stream")
    first, *_ = sampler.batch_indices(recipe.order_seed, 0, recipe.batch_size, len(task.train))
    assert task.train.source is not None
    broken = task.train.source.encoded(int(first)).image

    def sides(image: bytes | np.ndarray) -> tuple[int, int]:
        if np.array_equal(image, broken):
            raise decode.ImageError("made up")
        return sound(image)

    monkeypatch.setattr(decode, "sides", sides)
    (after,) = some(recipe, "stream", count=1)
    np.testing.assert_array_equal(after.targets[1:], before.targets[1:])
    np.testing.assert_array_equal(after.targets[0], task.fixed_targets()[(first + 1) % len(task.train)])


@pytest.mark.parametrize("large", ["fashion", "digits"])
def test_what_is_too_large_for_memory_is_streamed(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the images that are learnt from are many, or those that judge."""
    cards = [datasets.get(name) for name in ("fashion", "digits")]
    recipe = recipes.get("fashion", "quick", policy="same/ic", transfer_set="digits")
    assert not setup._streams(recipe, cards, "auto")[0]
    monkeypatch.setattr(datasets, "fits", lambda card: card.name != large)
    assert setup._streams(recipe, cards, "auto") == (True, "decoded they take more than 8 GiB")


def photographs(root: Path, side: int) -> str:
    """A folder of two classes with pictures of that longer side, by its name as a data set."""
    from PIL import Image

    for number in range(40):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, side, 3), 5 * number, np.uint8)).save(path)
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("side", "resolution", "policy", "streams", "reason"),
    [
        (257, 128, "labels", True, "shrunk to 256 px for memory, crops shown at 128 px would lose detail"),
        (257, 127, "labels", False, "they are kept as large as views of 127 px need them"),
        (256, 224, "labels", False, "they are kept as large as views of 224 px need them"),
        (257, 224, "fix/ic_ens", False, "policy fix/ic_ens wants them all at once, shrunk to 256 px"),
    ],
)
def test_images_that_memory_would_shrink_too_far_are_streamed(
    side: int, resolution: int, policy: str, streams: bool, reason: str, tmp_path: Path
) -> None:
    """A teacher that is shown enlarged crops out of shrunk images no longer knows what it sees."""
    name = photographs(tmp_path, side)
    recipe = recipes.get(name, "fast", policy=policy, resolution=resolution, teacher="t.npz")
    card = datasets.get(name)
    assert setup._streams(recipe, (card, card), "auto") == (streams, reason)
    assert setup._streams(recipe, (card, card), "device") == (False, "as asked")


def test_the_choice_of_loading_is_printed_once(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, however many runs share the images."""
    setup._say_once.cache_clear()
    for seed in (0, 1):
        setup.prepare(tiny.recipe(teacher, seed=seed))
    assert capsys.readouterr().out == "fashion: images are in memory: they are made up.\n"


def test_what_cannot_be_loaded_so_is_told(teacher: Path) -> None:
    """One line that says what to choose."""
    with pytest.raises(DistillError, match="policy fix/ic_ens wants .* in memory: choose loading"):
        setup.prepare(tiny.recipe(teacher, policy="fix/ic_ens"), loading="stream")
    streamed = setup.prepare(tiny.recipe(teacher), loading="stream")
    with pytest.raises(DistillError, match="policy fix/ic_ens wants .* in memory: choose loading"):
        setup.prepare(tiny.recipe(teacher, policy="fix/ic_ens"), [streamed], loading="stream")
    assert setup.prepare(tiny.recipe(teacher), [streamed]).train.streamed is False, "another loading is not taken over"
    with pytest.raises(DistillError, match="workers must not be negative, got -1"):
        setup.prepare(tiny.recipe(teacher), workers=-1)
    with pytest.raises(DistillError, match="unknown on_bad_image 'skip'"):
        setup.prepare(tiny.recipe(teacher), on_bad_image="skip")
    with pytest.raises(DistillError, match="unknown loading 'strem'. Did you mean 'stream'"):
        setup.prepare(tiny.recipe(teacher), loading="strem")

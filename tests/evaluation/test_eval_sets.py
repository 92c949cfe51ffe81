"""Evaluation sets: the same images however they are loaded, each network at its own size, broken images told once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny

from distill_lib import datasets
from distill_lib.datasets import decode
from distill_lib.evaluation import eval_sets
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.input_pipeline import splits
from distill_lib.input_pipeline.splits import InMemory, Streamed
from distill_lib.models.ensemble import Ensemble, Member

LABELS = np.array([0, 2, 1], np.int32)
CARD = dataclasses.replace(datasets.get("flowers"), name="three", counts={"test": 3}, num_classes=3)


def pictures(height: int = 32, width: int = 32) -> np.ndarray:
    """Three images of noise, uint8 (3, height, width, 3)."""
    return np.random.default_rng(3).integers(0, 256, (3, height, width, 3), np.uint8)


def source(images: Sequence[np.ndarray | bytes]) -> datasets.Source:
    """Images as a set of TFDS has them."""
    rows = [{"image": image, "label": label} for image, label in zip(images, LABELS, strict=True)]
    return datasets.Source(CARD, "test", rows, len(rows), None)


def answers(variables: dict, shown: np.ndarray) -> np.ndarray:
    """What `tiny.Linear` says of images uint8 (n, size, size, 3)."""
    return (shown / 127.5 - 1).reshape(len(shown), -1) @ variables["params"]["kernel"]


@pytest.mark.parametrize("padded", [False, True])
def test_streamed_and_in_memory_are_the_same_evaluation_set(padded: bool) -> None:
    """Where nothing is resized, both show the same pixels: accuracies of the two ways of loading can be compared."""
    images, side, size = pictures(), 0.875, 28
    if padded:
        canvas = np.zeros((3, 40, 40, 3), np.uint8)
        canvas[:, :32, :32] = images
        arrays = datasets.Arrays(canvas, LABELS, extents=np.full((3, 2), 32, np.int32))
    else:
        arrays = datasets.Arrays(images, LABELS)
    model, variables = tiny.linear(3, size * size * 3)
    decoded, resident = EvalSet(Streamed(source(images)), side), EvalSet(InMemory(lambda: arrays), side)
    found = decoded.logits(model, variables, size)
    np.testing.assert_allclose(found, answers(variables, images[:, 2:30, 2:30]), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found, resident.logits(model, variables, size), rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(decoded.labels, resident.labels)


def test_a_limit_takes_the_first_images() -> None:
    """Training splits are judged by a part of them."""
    model, variables = tiny.linear(3, 8 * 8 * 3)
    whole, part = (EvalSet(Streamed(source(pictures())), 1.0, limit) for limit in (None, 2))
    assert part.labels.tolist() == [0, 2]
    expected = whole.logits(model, variables, 8)[:2]
    np.testing.assert_allclose(part.logits(model, variables, 8), expected, rtol=1e-4, atol=1e-4)


def test_a_large_set_is_decoded_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The predictions are the same, and no more images than a part are ever in memory."""
    model, variables = tiny.linear(3, 8 * 8 * 3)
    expected = EvalSet(Streamed(source(pictures()))).logits(model, variables, 8)
    monkeypatch.setattr(splits, "KEPT_BYTES", 0)
    large = EvalSet(Streamed(source(pictures())))
    np.testing.assert_allclose(large.logits(model, variables, 8), expected, rtol=1e-4, atol=1e-4)
    assert not large.split._kept


def test_every_teacher_is_shown_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of oblong images: one teacher wants 16 pixels, the other takes the student's 8. Each size is decoded once."""
    images = pictures(40, 24)
    eval_set = EvalSet(Streamed(source(images)), 0.8)
    (large, for_large), (small, for_small) = (tiny.linear(3, size * size * 3) for size in (16, 8))
    teacher = Ensemble((Member(large, resolution=16), Member(small)))
    found = eval_set.logits(teacher, (for_large, for_small), 8)
    monkeypatch.setattr(decode, "evaluation", None)  # it is not called again
    np.testing.assert_array_equal(found, eval_set.logits(teacher, (for_large, for_small), 8))
    monkeypatch.undo()
    crops = {
        size: np.stack([decode.evaluation(image, round(size / 0.8), size) for image in images]) for size in (16, 8)
    }
    expected = (answers(for_large, crops[16]) + answers(for_small, crops[8])) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_what_evaluation_keeps_is_not_shown_to_a_fixed_teacher() -> None:
    """Of an oblong image evaluation shows the central square, a fixed teacher all of it, in any order."""
    split = Streamed(source(pictures(40, 24)))
    square, whole = (next(split.parts(1.0, [8], 3, square=square)) for square in (True, False))
    (again,) = Streamed(source(pictures(40, 24))).parts(1.0, [8], 3, square=False)
    np.testing.assert_array_equal(whole.teacher[8], again.teacher[8])
    assert not np.array_equal(square.teacher[8], whole.teacher[8])


class Brightness(nn.Module):
    """The mean of each colour, and a head on top of it."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, 3) to logits (batch, 2)."""
        return nn.Dense(2, name="head")(images.mean(axis=(1, 2)))


def test_features_are_those_of_the_first_images_and_of_all_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the images are loaded; several teachers' stand side by side, each for its own range of values."""
    images, head = pictures(), {"params": {"head": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}}
    mean = (images[:2] / 127.5 - 1).mean(axis=(1, 2))
    both = Ensemble((Member(Brightness()), Member(Brightness(), input_range=(0.0, 1.0))))
    expected = np.concatenate([mean, mean / 2 + 0.5], axis=1)
    monkeypatch.setattr(eval_sets, "FEATURE_IMAGES", 2)
    for split in (InMemory(lambda: datasets.Arrays(images, LABELS)), Streamed(source(images))):
        eval_set = EvalSet(split)
        np.testing.assert_allclose(eval_set.features(Brightness(), head, 32), mean, atol=1e-5)
        np.testing.assert_allclose(eval_set.features(both, (head, head), 32), expected, atol=1e-5)


def test_a_broken_image_is_told_once_and_left_out(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line however often and in however many sizes it is shown; the other images are what they were."""
    images = pictures()
    eval_set = EvalSet(Streamed(source([images[0], b"\xff\xd8 no more", images[2]])))
    for size in (8, 16, 8):
        model, variables = tiny.linear(3, size * size * 3)
        shown = np.stack([decode.evaluation(image, size, size) for image in images[[0, 2]]])
        found, labels, nothing = eval_set.sound(eval_set.logits(model, variables, size), eval_set.labels, None)
        np.testing.assert_allclose(found, answers(variables, shown), rtol=1e-4, atol=1e-3)
        assert labels.tolist() == [0, 1] and nothing is None and eval_set.split.bad == {1}
    head = {"params": {"head": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}}
    monkeypatch.setattr(eval_sets, "FEATURE_IMAGES", 2)
    (first,) = eval_set.sound(eval_set.features(Brightness(), head, 8))
    assert first.shape == (1, 3), "of the first images"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("image 1 of three test, test/1, cannot be decoded (") and line.endswith("it does not count")


@pytest.mark.parametrize(("name", "shape"), [("imagenet_v2", (4,)), ("imagenet_real", (4, 1000)), ("fashion", (4,))])
def test_any_split_can_be_evaluated_on(name: str, shape: tuple[int, ...]) -> None:
    """Sets for evaluation only, with one label an image or any number of them, and grey images."""
    eval_set = EvalSet(Streamed(datasets.load(name, "test", limit=4, mock=True)), 0.875)
    channels = datasets.get(name).channels
    assert eval_set.labels.shape == shape and eval_set.labels.dtype == (np.int32 if len(shape) == 1 else bool)
    model, variables = tiny.linear(5, 8 * 8 * channels)
    assert eval_set.logits(model, variables, 8).shape == (4, 5)

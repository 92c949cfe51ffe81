"""Evaluation against plain NumPy, and images in any number."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tiny

from distill_lib import datasets
from distill_lib.evaluation import eval_sets, metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.evaluation.metrics import NotFiniteError
from distill_lib.input_pipeline.splits import InMemory


def softmax(logits: np.ndarray) -> np.ndarray:
    """The plain formula, float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def pictures(count: int, side: int) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1), np.uint8)


def of(images: np.ndarray, side: float = 1.0) -> EvalSet:
    """These images, to be judged by."""
    return EvalSet(InMemory(lambda: datasets.Arrays(images, np.zeros(len(images), int))), side)


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (7, 7), (2, 500), (6, 3)])
def test_predictions_do_not_depend_on_the_batch_size(
    count: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last images are padded to a full batch; the padding must neither show nor change anything."""
    model, variables = tiny.linear(5, 64)
    images = pictures(count, 8)
    expected = (images / 127.5 - 1).reshape(count, -1) @ variables["params"]["kernel"]
    monkeypatch.setattr(eval_sets, "AT_ONCE", batch_size)
    found = of(images).logits(model, variables, 8)
    assert found.shape == (count, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_evaluation_sees_the_central_square() -> None:
    """`side` 0.8 of 10 pixels are the 8 in the middle; resizing them to 8 changes nothing."""
    model, variables = tiny.linear(5, 64)
    images = pictures(3, 10)
    found = of(images, side=0.8).logits(model, variables, 8)
    expected = (images[:, 1:9, 1:9] / 127.5 - 1).reshape(3, -1) @ variables["params"]["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_prediction_is_compiled_once() -> None:
    """The same model and settings give the same program; its parameters are arguments, not constants."""
    model, variables = tiny.linear(5, 64)
    program = functools.partial(eval_sets._program, resolution=8, side=1.0, output="logits")
    assert program(tiny.Linear(5)) is program(model) is not program(model, side=0.5)
    _, others = tiny.linear(5, 64, seed=1)
    ours, theirs = (of(pictures(2, 8)).logits(model, each, 8) for each in (variables, others))
    assert not np.allclose(ours, theirs)


def test_metrics_equal_their_plain_formulas() -> None:
    """Top-1, calibration error, KL(teacher || student) at temperature 1, agreement and agreement at five."""
    numbers = np.random.default_rng(1)
    student, teacher = (numbers.normal(0, 2, (50, 9)).astype(np.float32) for _ in range(2))
    labels = numbers.integers(0, 9, 50)
    found = metrics.metrics(student, labels, teacher)
    p, q = softmax(teacher), softmax(student)
    assert found["top1"] == np.mean(student.argmax(1) == labels)
    np.testing.assert_allclose(found["kl"], np.mean((p * np.log(p / q)).sum(1)), rtol=1e-5)
    np.testing.assert_allclose(found["agreement"], np.mean(student.argmax(1) == teacher.argmax(1)), rtol=1e-6)
    five = np.argsort(-student, axis=1)[:, :5]
    np.testing.assert_allclose(found["agreement@5"], np.mean((five == teacher.argmax(1)[:, None]).any(1)), rtol=1e-6)
    assert found["agreement"] < found["agreement@5"] < 1
    assert found["ece"] == metrics.calibration_error(student, labels)
    assert all(type(value) is float for value in found.values())
    assert set(metrics.metrics(student, labels)) == {"top1", "ece"}


def test_calibration_error_equals_a_plain_loop() -> None:
    """Fifteen equal bins of confidence; each gap between confidence and accuracy weighs by the images in its bin."""
    numbers = np.random.default_rng(2)
    logits, labels = numbers.normal(0, 2, (200, 3)).astype(np.float32), numbers.integers(0, 3, 200)
    confidence, right = softmax(logits).max(1), logits.argmax(1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    np.testing.assert_allclose(metrics.calibration_error(logits, labels), expected, rtol=1e-5)


@pytest.mark.parametrize(("label", "expected"), [(0, 0.0), (1, 1.0)])
def test_calibration_error_at_its_ends(label: int, expected: float) -> None:
    """Sure and right is 0; sure and wrong is 1; confidence 1 falls into the last bin."""
    logits = np.array([[100.0, 0.0]] * 5, np.float32)
    assert metrics.calibration_error(logits, np.full(5, label)) == pytest.approx(expected)


def test_images_may_have_several_right_answers_or_none() -> None:
    """One of the labels is right; images without any count neither for accuracy nor for calibration."""
    numbers = np.random.default_rng(4)
    student, teacher = (numbers.normal(0, 2, (60, 4)).astype(np.float32) for _ in range(2))
    labels = numbers.random((60, 4)) < 0.3
    judged = labels.any(1)
    assert 0 < judged.sum() < 60
    found = metrics.metrics(student, labels, teacher)
    assert found["top1"] == np.mean(
        [row[guess] for row, guess in zip(labels, student.argmax(1), strict=True) if row.any()]
    )
    answers = np.where(labels[np.arange(60), student.argmax(1)], student.argmax(1), -1)  # right, or no class at all
    assert found["ece"] == metrics.calibration_error(student[judged], answers[judged])
    assert found["kl"] == metrics.metrics(student, answers, teacher)["kl"]  # the teacher is asked about all images


def test_one_right_answer_is_the_same_in_either_form() -> None:
    """Integer classes, and rows with one true class each."""
    numbers = np.random.default_rng(5)
    logits, classes = numbers.normal(0, 2, (30, 4)).astype(np.float32), numbers.integers(0, 4, 30)
    assert metrics.metrics(logits, np.eye(4, dtype=bool)[classes]) == metrics.metrics(logits, classes)


def test_where_no_image_has_a_label_nothing_is_claimed() -> None:
    """Neither right nor calibrated: what can be said is said in comparison with a teacher."""
    logits, unlabelled = np.zeros((2, 3), np.float32), np.zeros((2, 3), bool)
    assert metrics.metrics(logits, unlabelled) == {}
    assert metrics.metrics(logits, unlabelled, logits).keys() == {"kl", "agreement", "agreement@5"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_answers_that_are_not_finite_are_told(value: float) -> None:
    """Also those that are, but whose divergence would not be."""
    logits = np.zeros((4, 3), np.float32)
    logits[2, 1] = value
    with pytest.raises(NotFiniteError, match="answers are not finite"):
        metrics.metrics(logits, np.zeros(4, int))

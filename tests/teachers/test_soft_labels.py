"""SoftLabels: what is kept of logits, and what comes back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_lib.teachers import soft_labels

CLASSES = 12


def tempered(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Predictions by the plain formula, float64."""
    exponentials = np.exp((np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True)) / temperature)
    return exponentials / exponentials.sum(-1, keepdims=True)


def drawn(seed: int, spread: float, shift: float) -> np.ndarray:
    """Logits of six images."""
    return (np.random.default_rng(seed).normal(0, spread, (6, CLASSES)) + shift).astype(np.float32)


def replayed(logits: np.ndarray, kept: int, temperature: float = 1.0) -> np.ndarray:
    """Logits there and back."""
    return np.asarray(soft_labels.restore(jax.device_get(soft_labels.keep(logits, kept, temperature)), CLASSES))


@given(st.integers(0, 999), st.sampled_from([0.1, 2, 20]), st.sampled_from([-300, 0, 300]), st.sampled_from([1, 5, 20]))
def test_all_logits_come_back_to_half_precision(seed: int, spread: float, shift: float, temperature: float) -> None:
    """As predictions, at any temperature; how large the logits are does not matter, since differences are kept."""
    logits = drawn(seed, spread, shift)
    found = tempered(replayed(logits, CLASSES), temperature)
    np.testing.assert_allclose(found, tempered(logits, temperature), atol=4e-4)


@settings(max_examples=30)
@given(st.integers(0, 999), st.sampled_from([0.5, 3]), st.sampled_from([1, 3, 11]), st.sampled_from([0.5, 1, 4, 20]))
def test_the_rest_has_its_probability(seed: int, spread: float, kept: int, temperature: float) -> None:
    """The likeliest classes keep theirs, and the others share what is left evenly: at the temperature of the loss."""
    logits = drawn(seed, spread, 7)
    expected, found = tempered(logits, temperature), tempered(replayed(logits, kept, temperature), temperature)
    order = np.argsort(-logits, axis=-1)
    first = np.take_along_axis(expected, order[:, :kept], -1)
    np.testing.assert_allclose(np.take_along_axis(found, order[:, :kept], -1), first, atol=2e-3)
    others = np.take_along_axis(found, order[:, kept:], -1)
    np.testing.assert_allclose(others.sum(-1), 1 - first.sum(-1), atol=2e-3)
    assert np.ptp(others, axis=-1).max() < 1e-12, "evenly"


@pytest.mark.parametrize(("temperature", "sign"), [(0.25, -1), (1, 0), (10, 1)])
def test_at_another_temperature_the_rest_weighs_too_much_or_too_little(temperature: float, sign: int) -> None:
    """Kept at temperature 1: flatter predictions overrate what is spread evenly, sharper ones underrate it."""
    logits = drawn(0, 0.7, 0)
    found, expected = (tempered(each, temperature) for each in (replayed(logits, 3), logits))
    order = np.argsort(-logits, axis=-1)[:, 3:]
    excess = (np.take_along_axis(found, order, -1) - np.take_along_axis(expected, order, -1)).sum(-1)
    assert (sign * excess > 2e-4).all() if sign else (abs(excess) < 2e-4).all()


def test_a_sure_teacher_gives_finite_answers() -> None:
    """Differences beyond half precision, and a rest without any mass."""
    logits = np.where(np.arange(CLASSES) == 3, 0, -1e30).astype(np.float32)[None]
    for kept in (1, CLASSES):
        found = replayed(logits, kept)
        assert np.isfinite(found).all() and tempered(found, 10)[0, 3] == 1


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (257, np.uint16), (65_537, np.uint32)])
def test_classes_are_counted_in_the_smallest_type(classes: int, kind: type) -> None:
    logits = jnp.arange(classes, dtype=jnp.float32)[None]
    found = soft_labels.keep(logits, 2)
    assert (
        found.classes is not None
        and found.classes.dtype == kind
        and found.classes[0].tolist() == [classes - 1, classes - 2]
    )
    assert soft_labels.size(2, classes) == sum(np.asarray(part).nbytes for part in found)
    assert soft_labels.size(classes, classes) == 2 * classes

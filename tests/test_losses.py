"""Losses: value, gradient, batch axis and properties, against the plain formula in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_lib import losses

TEMPERATURES = (0.5, 1.0, 2.0, 10.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """The plain formula, float64."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def logits(seed: int, *shape: int) -> np.ndarray:
    """Logits of a usual size."""
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_the_plain_formula_times_temperature_squared(temperature: float) -> None:
    """T^2 * KL(teacher || student) of the tempered predictions: teacher first, and the factor is there."""
    student, teacher = logits(0, 6, 5), logits(1, 6, 5)
    p, q = softmax(teacher.astype(np.float64) / temperature), softmax(student.astype(np.float64) / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=-1)
    found = losses.kl(jnp.asarray(student), jnp.asarray(teacher), temperature=temperature)
    assert found.shape == (6,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_is_temperature_times_the_gap_of_predictions(temperature: float) -> None:
    """d/d(student) = T * (softmax(student / T) - softmax(teacher / T)), the closed form."""
    student, teacher = logits(2, 4, 7), logits(3, 4, 7)
    gradient = jax.grad(lambda s: losses.kl(s, jnp.asarray(teacher), temperature=temperature).sum())(
        jnp.asarray(student)
    )
    gap = softmax(student.astype(np.float64) / temperature) - softmax(teacher.astype(np.float64) / temperature)
    np.testing.assert_allclose(gradient, temperature * gap, atol=2e-6 * max(1, temperature))


def test_the_factor_keeps_the_size_of_the_gradient() -> None:
    """Hinton et al.: with T^2 the gradient tends to (student - teacher) / classes for a high temperature."""
    student, teacher = logits(4, 1, 5) / 10, logits(5, 1, 5) / 10
    student, teacher = student - student.mean(), teacher - teacher.mean()
    gradient = jax.grad(lambda s: losses.kl(s, jnp.asarray(teacher), temperature=50.0).sum())(jnp.asarray(student))
    np.testing.assert_allclose(gradient, (student - teacher) / 5, atol=2e-3)


def test_temperature_may_be_an_array() -> None:
    """A temperature that is passed to a compiled step gives the same value as the number."""
    student, teacher = jnp.asarray(logits(0, 6, 5)), jnp.asarray(logits(1, 6, 5))
    found = jax.jit(lambda t: losses.kl(student, teacher, temperature=t))(jnp.float32(2))
    np.testing.assert_allclose(found, losses.kl(student, teacher, temperature=2.0), rtol=1e-5)


def test_every_example_has_its_own_value() -> None:
    """Leading axes are kept, and an example's loss does not depend on the others."""
    student, teacher = logits(6, 2, 3, 5), logits(7, 2, 3, 5)
    whole = losses.kl(jnp.asarray(student), jnp.asarray(teacher), temperature=2.0)
    assert whole.shape == (2, 3)
    alone = losses.kl(jnp.asarray(student[1, 2]), jnp.asarray(teacher[1, 2]), temperature=2.0)
    np.testing.assert_allclose(whole[1, 2], alone, rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(-50, 50), st.floats(-50, 50), st.sampled_from(TEMPERATURES))
@settings(max_examples=30)
def test_kl_is_positive_and_blind_to_shifts(seed: int, up: float, down: float, temperature: float) -> None:
    """Adding a constant to all logits of an example changes no prediction, so it must not change the loss."""
    student, teacher = logits(seed, 3, 5), logits(seed + 1, 3, 5)
    plain = losses.kl(jnp.asarray(student), jnp.asarray(teacher), temperature=temperature)
    shifted_student, shifted_teacher = student + np.float32(up), teacher + np.float32(down)
    shifted = losses.kl(jnp.asarray(shifted_student), jnp.asarray(shifted_teacher), temperature=temperature)
    np.testing.assert_allclose(shifted, plain, rtol=1e-3, atol=1e-3)
    assert (plain > 0).all()


def test_kl_is_zero_where_student_equals_teacher() -> None:
    """At equality value and gradient vanish, also for logits far from zero."""
    same = jnp.asarray(logits(8, 3, 5) * 20)
    np.testing.assert_allclose(losses.kl(same, same, temperature=2.0), 0, atol=1e-6)
    gradient = jax.grad(lambda s: losses.kl(s, same, temperature=2.0).sum())(same)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_kl_is_finite_where_a_prediction_underflows() -> None:
    """Logits 1,000 apart give the exact limit, not NaN: T^2 * 1000 / T."""
    student, teacher = jnp.array([0.0, -1000.0]), jnp.array([-1000.0, 0.0])
    np.testing.assert_allclose(losses.kl(student, teacher, temperature=2.0), 2000.0, rtol=1e-6)


def test_cross_entropy_of_hard_and_mixed_labels() -> None:
    """Minus the log of the right class's probability; mixed labels mix the losses alike (mixup)."""
    values = logits(9, 4, 5)
    labels, others = np.array([0, 4, 2, 2]), np.array([1, 4, 0, 3])
    log_p = np.log(softmax(values.astype(np.float64)))
    hard, other = -log_p[np.arange(4), labels], -log_p[np.arange(4), others]
    one_hot, one_hot_others = np.eye(5, dtype=np.float32)[labels], np.eye(5, dtype=np.float32)[others]
    np.testing.assert_allclose(losses.cross_entropy(jnp.asarray(values), jnp.asarray(one_hot)), hard, rtol=1e-5)
    mixed = losses.cross_entropy(jnp.asarray(values), jnp.asarray(0.3 * one_hot + 0.7 * one_hot_others))
    np.testing.assert_allclose(mixed, 0.3 * hard + 0.7 * other, rtol=1e-5)


def test_agreement_is_one_where_the_predictions_coincide() -> None:
    """Only the largest logit counts, not its size."""
    student = jnp.array([[1.0, 5.0, 0.0], [1.0, 5.0, 0.0], [-1.0, -5.0, -3.0]])
    teacher = jnp.array([[0.0, 0.1, 0.0], [0.2, 0.1, 0.0], [9.0, 0.0, 8.0]])
    found = losses.agreement(student, teacher)
    np.testing.assert_array_equal(found, [1.0, 0.0, 1.0])
    assert found.dtype == jnp.float32


def test_distances_are_those_of_the_released_code() -> None:
    """By their plain formulas, one value an example; the teacher's most likely class is the hard target."""
    student, teacher = logits(10, 6, 5), logits(11, 6, 5)
    gap = student.astype(np.float64) - teacher
    log_gap = np.log(softmax(student.astype(np.float64)) / softmax(teacher.astype(np.float64)))
    chosen = -np.log(softmax(student.astype(np.float64)))[np.arange(6), teacher.argmax(-1)]
    expected = {
        "euclidean": np.linalg.norm(gap, axis=-1),
        "l2": (gap**2).sum(-1),
        "logsoftmax_euclidean": np.linalg.norm(log_gap, axis=-1),
        "hard": chosen,
    }
    assert set(losses.DISTANCES) == {"kl", *expected}
    for name, wanted in expected.items():
        found = losses.DISTANCES[name](jnp.asarray(student), jnp.asarray(teacher))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, err_msg=name)


def test_smoothing_gives_a_share_of_the_hard_target_to_the_other_classes() -> None:
    """KL(target || student): value, and a gradient that vanishes where the student predicts the target itself."""
    student, teacher = logits(13, 6, 5), logits(14, 6, 5)
    target = np.full((6, 5), 0.2 / 4)
    target[np.arange(6), teacher.argmax(-1)] = 0.8
    expected = (target * np.log(target / softmax(student.astype(np.float64)))).sum(-1)
    np.testing.assert_allclose(losses.hard(jnp.asarray(student), jnp.asarray(teacher), smoothing=0.2), expected, 1e-5)
    same = jnp.asarray(np.log(target), jnp.float32)
    value, gradient = jax.value_and_grad(lambda s: losses.hard(s, jnp.asarray(teacher), smoothing=0.2).sum())(same)
    np.testing.assert_allclose([value, jnp.abs(gradient).max()], 0, atol=1e-6)


@pytest.mark.parametrize("name", ["euclidean", "logsoftmax_euclidean"])
def test_distances_with_a_root_have_a_gradient_where_they_vanish(name: str) -> None:
    """A student that matches its teacher exactly must not be thrown away by a gradient that is not a number."""
    same = jnp.asarray(logits(12, 3, 5))
    gradient = jax.grad(lambda s: losses.DISTANCES[name](s, same).sum())(same)
    np.testing.assert_array_equal(gradient, 0)


def test_without_the_factor_the_divergence_is_plain() -> None:
    """The ablation of T^2: the value is that much smaller."""
    student, teacher = jnp.asarray(logits(0, 6, 5)), jnp.asarray(logits(1, 6, 5))
    plain = losses.kl(student, teacher, temperature=5.0, scaled=False)
    np.testing.assert_allclose(25 * plain, losses.kl(student, teacher, temperature=5.0), rtol=1e-6)


def test_agreement_at_k_looks_for_the_teachers_class_among_the_students() -> None:
    """And not the other way round; among all classes it is always found."""
    student = jnp.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    teacher = jnp.array([[0.0, 9.0, 8.0, 7.0], [9.0, 0.0, 0.0, 8.0]])
    np.testing.assert_array_equal(losses.agreement(student, teacher, k=2), [1.0, 0.0])
    np.testing.assert_array_equal(losses.agreement(teacher, student, k=2), [0.0, 1.0])
    np.testing.assert_array_equal(losses.agreement(student, teacher, k=9), [1.0, 1.0])

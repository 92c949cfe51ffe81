"""Centred kernel alignment against the definition by kernels, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_lib.evaluation.metrics import linear_cka


def features(seed: int, count: int, width: int) -> np.ndarray:
    """Correlated columns with means of their own."""
    numbers = np.random.default_rng(seed)
    return (numbers.normal(size=(count, width)) @ numbers.normal(size=(width, width)) + 3).astype(np.float32)


def by_kernels(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with n x n kernels and the centring matrix written out."""
    centre = np.eye(len(x)) - np.full((len(x), len(x)), 1 / len(x))
    k, l = (centre @ (each.astype(np.float64) @ each.astype(np.float64).T) @ centre for each in (x, y))  # noqa: E741
    return np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))


@given(st.integers(0, 99), st.integers(3, 20), st.integers(1, 30), st.integers(1, 30))
def test_it_equals_its_definition_by_kernels(seed: int, count: int, width: int, other: int) -> None:
    """Whatever is smaller, the number of images or of features."""
    x, y = features(seed, count, width), features(seed + 1, count, other)
    assert linear_cka(x, y) == pytest.approx(by_kernels(x, y), rel=1e-6)


def test_rotation_scale_and_shift_do_not_change_it() -> None:
    """Nor does the order of the features; another network's features do."""
    x, y = features(0, 40, 6), features(1, 40, 9)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 9)))[0]
    value = linear_cka(x, y)
    assert linear_cka(x, (7.5 * y @ rotation - 2).astype(np.float32)) == pytest.approx(value, rel=1e-5)
    assert linear_cka(y, x) == pytest.approx(value, rel=1e-12)
    assert linear_cka(x, -0.1 * x[:, ::-1]) == pytest.approx(1)
    assert 0 < value < 0.9


def test_features_without_variation_have_no_similarity() -> None:
    """A number would be made up."""
    assert np.isnan(linear_cka(np.ones((5, 3)), features(0, 5, 2)))

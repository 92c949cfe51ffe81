"""What students say of photographs that nobody learns from, and what somebody reaches who never looks."""

from __future__ import annotations

import held_out
import numpy as np
import pytest

from distill_lib import recipes
from distill_lib.datasets import package_images
from distill_lib.experiments import stress


def test_a_place_is_counted_from_the_likeliest_class() -> None:
    expected, logits = np.array([[0.0, 9.0, 1.0], [5.0, 1.0, 0.0]]), np.array([[3.0, 2.0, 1.0], [2.0, 1.0, 3.0]])
    assert held_out.places(logits, expected).tolist() == [2, 2]
    assert held_out.places(expected, expected).tolist() == [1, 1]


def test_no_constant_answer_is_closer_than_the_mean_of_what_it_is_judged_on() -> None:
    random = np.random.default_rng(0)
    seen, expected = 4 * random.normal(size=(2, 200, 10)).astype(np.float32)
    best, other, alike = (held_out.constant(each, expected) for each in (expected, seen, 0 * seen))
    assert best["kl"] < min(other["kl"], alike["kl"])
    shares = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
    assert alike["kl"] == pytest.approx(float((shares * np.log(10 * shares)).sum(-1).mean()), rel=1e-4)
    assert best["agreement"] == pytest.approx(np.mean(expected.argmax(-1) == shares.mean(0).argmax()))


def test_whole_photographs_are_those_that_nobody_learns_from() -> None:
    recipe = recipes.get("photographs", "smoke")
    logits = stress.logits(stress.load("mock", recipe), held_out.photographs(), recipe)
    assert logits.shape == (len(held_out.HELD_OUT), 1_000) and len(np.unique(logits, axis=0)) == len(logits)
    assert {package_images.SHEET[name]["split"] for name in held_out.HELD_OUT} == {"validation", "test"}

"""Compressed networks: a grid for each output, or exact zeros, and nothing else is touched."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from distill_lib import models
from distill_lib.models import compression

NUMBERS = np.random.default_rng(0)
VARIABLES = {
    "params": {
        "conv": {"kernel": NUMBERS.normal(size=(3, 3, 4, 6)).astype(np.float32) * np.arange(6, dtype=np.float32)},
        "norm": {"scale": NUMBERS.normal(size=(1, 1, 1, 6)).astype(np.float32)},
    }
}
KERNEL = VARIABLES["params"]["conv"]["kernel"]


def changed(form: str) -> np.ndarray:
    """The kernel in a form; nothing else is changed."""
    params = compression.compressed(None, VARIABLES, form)[1]["params"]
    np.testing.assert_array_equal(params["norm"]["scale"], VARIABLES["params"]["norm"]["scale"])
    return np.asarray(params["conv"]["kernel"])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_each_output_has_a_grid_of_its_own(bits: int) -> None:
    """With as many levels as the bits hold, up to its largest weight, which is kept; a channel of zeros stays one."""
    kernel = changed(f"int{bits}")
    assert not kernel[..., 0].any()
    for channel in range(1, 6):
        own, was = kernel[..., channel], KERNEL[..., channel]
        step = np.abs(was).max() / (2 ** (bits - 1) - 1)
        np.testing.assert_allclose(own / step, np.round(own / step), atol=1e-4)
        assert len(np.unique(np.round(own / step))) <= 2**bits - 1
        assert np.abs(own - was).max() <= step * 0.5001
        assert np.abs(own).max() == pytest.approx(np.abs(was).max())


@pytest.mark.parametrize(("form", "share"), [("pruned50", 0.5), ("pruned75", 0.75)])
def test_pruning_takes_the_smallest_weights(form: str, share: float) -> None:
    """A share of the kernel, and leaves the others as they are."""
    kernel, sizes = changed(form), np.abs(KERNEL)
    kept = sizes >= np.quantile(sizes, share)
    np.testing.assert_array_equal(kernel, np.where(kept, KERNEL, 0))
    assert kept.mean() == pytest.approx(1 - share, abs=0.01)


@pytest.mark.parametrize("inputs", [4, 1])
def test_of_every_four_weights_of_an_output_the_two_largest_are_kept(inputs: int) -> None:
    """In the order that a product of matrices reads them; ties too, and a last group that is not full."""
    kernel = NUMBERS.integers(1, 4, (5, 5, inputs, 6)).astype(np.float32)
    rows = np.asarray(compression.two_of_four(jnp.asarray(kernel))).reshape(-1, 6)
    given = kernel.reshape(-1, 6)
    for begin in range(0, len(rows), 4):
        own, was = rows[begin : begin + 4], given[begin : begin + 4]
        assert ((own != 0).sum(axis=0) == min(2, len(own))).all()
        np.testing.assert_array_equal(np.sort(own, axis=0)[-2:], np.sort(was, axis=0)[-2:])


@pytest.mark.parametrize("form", [name for name, form in compression.FORMS.items() if form.kernel])
def test_gradients_pass_to_the_weights_as_if_nothing_was_changed(form: str) -> None:
    """So that a weight which is zero in its form can come back."""

    def total(variables: models.Variables) -> jax.Array:
        kernel = compression.compressed(None, variables, form)[1]["params"]["conv"]["kernel"]
        return (factors * kernel).sum()

    factors = NUMBERS.normal(size=KERNEL.shape).astype(np.float32)
    np.testing.assert_array_equal(jax.grad(total)(VARIABLES)["params"]["conv"]["kernel"], factors)


@pytest.mark.usefixtures("tiny_models")
def test_activations_are_rounded_with_a_scale_for_each_image() -> None:
    """Many bits change next to nothing, and what else is in the batch changes nothing."""
    model, numbers = models.create(tiny.STUDENT, 3), np.random.default_rng(1)
    plain, own = model.fold({"params": tiny.random_params(tiny.STUDENT, 3)})
    images, logits = numbers.uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32), {}
    for form in ("int8", "w8a8", "w4a4"):
        answer = jax.jit(functools.partial(models.logits, *compression.compressed(plain, own, form)))
        logits[form] = answer(images)
        np.testing.assert_allclose(logits[form][:1], answer(images[:1]), rtol=1e-4, atol=1e-4)
    error = {form: float(jnp.abs(each - logits["int8"]).mean()) for form, each in logits.items()}
    assert 0 < error["w8a8"] < 0.5 * error["w4a4"]


def test_the_size_counts_bits_scales_and_which_weights_there_are() -> None:
    """216 weights, 6 scales of 32 bits for their outputs where they are rounded, and 6 numbers of 32 that stay."""
    assert compression.size(VARIABLES) == 4 * 222
    assert compression.size(VARIABLES, "int8") == compression.size(VARIABLES, "w8a8") == 216 + 4 * 12
    assert compression.size(VARIABLES, "int3") == 216 * 3 // 8 + 4 * 12
    assert compression.size(VARIABLES, "pruned75") == 216 * 4 // 4 + 216 // 8 + 4 * 6
    assert compression.size(VARIABLES, "2:4") == 216 * 4 // 2 + 216 // 8 + 4 * 6

"""Weights in few bits: a grid for each output, an error of half a step at most, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest

from distill_lib.errors import DistillError
from distill_lib.models import quantized

NUMBERS = np.random.default_rng(0)
VARIABLES = {
    "params": {
        "conv": {"kernel": NUMBERS.normal(size=(3, 3, 4, 6)).astype(np.float32) * np.arange(6, dtype=np.float32)},
        "norm": {"scale": NUMBERS.normal(size=(1, 1, 1, 6)).astype(np.float32)},
    }
}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_each_output_has_a_grid_of_its_own(bits: int) -> None:
    """With as many levels as the bits hold, up to its largest weight, which is kept; a channel of zeros stays one."""
    kernel = VARIABLES["params"]["conv"]["kernel"]
    rounded = quantized.rounded(VARIABLES, bits)["params"]
    np.testing.assert_array_equal(rounded["norm"]["scale"], VARIABLES["params"]["norm"]["scale"])
    assert not rounded["conv"]["kernel"][..., 0].any()
    for channel in range(1, 6):
        own, was = rounded["conv"]["kernel"][..., channel], kernel[..., channel]
        step = np.abs(was).max() / (2 ** (bits - 1) - 1)
        np.testing.assert_allclose(own / step, np.round(own / step), atol=1e-4)
        assert len(np.unique(np.round(own / step))) <= 2**bits - 1
        assert np.abs(own - was).max() <= step * 0.5001
        assert np.abs(own).max() == pytest.approx(np.abs(was).max())


def test_the_size_counts_bits_and_scales() -> None:
    """216 weights of 8 bits, 6 scales of 32, and 6 numbers of 32 that stay."""
    assert quantized.size(VARIABLES) == 4 * 222
    assert quantized.size(VARIABLES, 8) == 216 + 4 * 12
    assert quantized.size(VARIABLES, 3) == 216 * 3 // 8 + 4 * 12


@pytest.mark.parametrize("bits", [1, 17])
def test_another_number_of_bits_is_refused(bits: int) -> None:
    with pytest.raises(DistillError, match=f"rounded to 2 to 16 bits, not {bits}"):
        quantized.rounded(VARIABLES, bits)

"""BiT's gradients against timm's in double precision: the written-out one of GroupNorm, and those of the kernels."""

from __future__ import annotations

from pathlib import Path

import gradients
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest

from distill_lib import losses, models, weights

FILE = Path(__file__).parents[1] / "golden" / "torch" / "bit_gradients.npz"
TOLERANCE = 1e-4  # of the norm, and of the largest of some numbers


@pytest.mark.slow
@pytest.mark.parametrize("case", gradients.CASES)
def test_every_gradient_equals_that_of_timm(case: str) -> None:
    """The same weights and images; in two cases the epsilons of the normalisations decide the numbers."""
    golden, model = parity.load(FILE), gradients.model()
    variables, images, labels = gradients.drawn(case, int(golden["seed"]))

    @jax.jit
    def loss(params: dict) -> jax.Array:
        logits = models.logits(model, {"params": params}, images)
        return losses.cross_entropy(logits, jax.nn.one_hot(labels, gradients.CLASSES)).mean()

    value, found = jax.value_and_grad(loss)(jax.tree.map(jnp.asarray, variables["params"]))
    np.testing.assert_allclose(value, golden[f"loss of {case}"], rtol=1e-4)
    flat = weights.flatten(found)
    assert set(flat) == set(golden["paths"].tolist()) and len(flat) > 40
    for path, expected in zip(golden["paths"].tolist(), golden[case], strict=True):
        summary = gradients.summary(np.asarray(flat[path]))
        for part in (slice(-1), slice(-1, None)):  # single numbers, and the norm, which is much larger
            assert parity.difference(summary[part], expected[part]) < TOLERANCE, path

"""A narrow BiT and what its gradients are summed up by, for a golden file and its test; not a test itself."""

from __future__ import annotations

import numpy as np
import seeded

from distill_lib import models, weights
from distill_lib.models.bit import BiT

STAGES, WIDTH, CLASSES = (2, 1, 1), 64, 10
SIDE, BATCH, SAMPLES = 32, 4, 24
CASES = {"usual": (1.0, 1.0), "faint images": (1e-3, 1.0), "small kernels": (1.0, 1e-5)}
"""Factors of the images and of all kernels but the head's: where they are small, the epsilons of GroupNorm and of
weight standardisation count as much as the variances do."""


def model() -> BiT:
    """Every part of the family: the pooled stem, shortcuts with and without a projection, strides."""
    return BiT(CLASSES, STAGES, WIDTH)


def drawn(case: str, seed: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """Variables, images (batch, side, side, 3) float32 and labels (batch,) int64 of a case."""
    bright, large = CASES[case]
    flat = weights.flatten(seeded.variables(models.shapes(model(), (SIDE, SIDE, 3)), seed))
    factors = {path: large if path.endswith("kernel") and "head" not in path else 1.0 for path in flat}
    scaled = {path: leaf * np.float32(factors[path]) for path, leaf in flat.items()}
    return (
        weights.unflatten(scaled),
        seeded.images(seed, BATCH, SIDE) * np.float32(bright),
        np.arange(BATCH) * 3 % CLASSES,
    )


def summary(gradient: np.ndarray) -> np.ndarray:
    """A few numbers of a gradient and, as the last one, its norm, float32 (SAMPLES + 1,)."""
    return np.append(seeded.sample(gradient, SAMPLES), np.float32(np.linalg.norm(gradient)))

"""Centred kernel alignment: how alike two networks arrange the same images, whatever their features are called.

References:
    Kornblith, Norouzi, Lee, Hinton: "Similarity of neural network representations revisited", ICML 2019, section 2.3
    and equation 4 (linear kernel).
"""

from __future__ import annotations

import numpy as np


def linear_cka(features: np.ndarray, others: np.ndarray) -> float:
    """Linear CKA of two networks' features of the same images, exactly, over all images at once.

    `||Y'X||^2 / (||X'X|| ||Y'Y||)` with Frobenius norms and centred columns. It does not change when either is
    rotated, mirrored or scaled as a whole. With few images for many features it comes out too high: compare values of
    one split and one pair of widths with each other.

    Args:
        features: (n, p), one row an image.
        others: (n, q), of another network, in the same order.

    Returns:
        A number in [0, 1]; nan where either has no variation over the images.
    """
    x, y = (each.astype(np.float64) - each.mean(axis=0, dtype=np.float64) for each in (features, others))
    norm = np.sqrt(_squared_product(x, x) * _squared_product(y, y))
    return float(_squared_product(x, y) / norm) if norm > 0 else float("nan")


def _squared_product(x: np.ndarray, y: np.ndarray) -> float:
    """`||Y'X||^2`, through whichever of `Y'X` and the two `XX'` is smaller."""
    if x.shape[1] * y.shape[1] <= len(x) ** 2:
        return float(np.square(y.T @ x).sum())
    return float(((x @ x.T) * (y @ y.T)).sum())

"""Accuracy where an image may have several right answers, or none, as in ImageNet ReaL."""

from __future__ import annotations

import numpy as np


def multilabel_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose predicted class is one of their labels; images without any label are not counted.

    Args:
        logits: (n, classes) float.
        labels: (n, classes) bool, as `datasets.arrays` has them.

    Returns:
        A share in [0, 1]; nan where no image has a label.

    References:
        Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159, section 3.
    """
    judged = labels.any(axis=-1)
    if not judged.any():
        return float("nan")
    right = np.take_along_axis(labels, logits.argmax(-1)[:, None], axis=-1)[:, 0]
    return float(right[judged].mean())

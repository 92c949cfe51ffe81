"""Right and wrong where an image has one label, or where it may have several or none, as in ImageNet ReaL."""

from __future__ import annotations

import numpy as np


def counted(labels: np.ndarray) -> np.ndarray:
    """Which images are judged at all, bool (n,): all but those that have no label.

    Args:
        labels: (n,) integer classes, or (n, classes) bool, as `datasets.arrays` has them.
    """
    return np.asarray(labels.any(axis=-1)) if labels.ndim == 2 else np.ones(len(labels), bool)


def right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the predicted class of each image is its label, or one of them, bool (n,).

    Args:
        logits: (n, classes) float.
        labels: (n,) integer classes, or (n, classes) bool.
    """
    predicted = logits.argmax(-1)
    if labels.ndim == 2:
        return np.take_along_axis(labels, predicted[:, None], axis=-1)[:, 0]
    return predicted == labels


def multilabel_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose predicted class is one of their labels; images without any label are not counted.

    Args:
        logits: (n, classes) float.
        labels: (n,) integer classes, or (n, classes) bool.

    Returns:
        A share in [0, 1]; nan where no image has a label.

    References:
        Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159, section 3.
    """
    judged = counted(labels)
    return float(right(logits, labels)[judged].mean()) if judged.any() else float("nan")

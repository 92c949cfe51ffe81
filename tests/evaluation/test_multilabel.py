"""Several right answers, or none."""

from __future__ import annotations

import numpy as np
import pytest

from distill_lib.evaluation import metrics

LABELS = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]], bool)
LOGITS = np.array([[0, 3, 1], [5, 0, 1], [9, 0, 0], [0, 1, 2]], np.float32)  # classes 1, 0, 0, 2


def test_a_prediction_is_right_if_it_is_one_of_the_labels() -> None:
    """The third image has no label: no prediction is right, and it does not count."""
    assert metrics.right(LOGITS, LABELS).tolist() == [True, False, False, True]
    assert metrics.counted(LABELS).tolist() == [True, True, False, True]
    assert metrics.multilabel_accuracy(LOGITS, LABELS) == pytest.approx(2 / 3)


def test_one_label_an_image_is_the_usual_accuracy() -> None:
    """Integer classes, and the same as bool rows, give the same."""
    classes = np.array([1, 2, 0, 2], np.int32)
    hot = np.eye(3, dtype=bool)[classes]
    assert metrics.counted(classes).all() and metrics.counted(classes).dtype == bool
    for labels in (classes, hot):
        assert metrics.right(LOGITS, labels).tolist() == [True, False, True, True]
        assert metrics.multilabel_accuracy(LOGITS, labels) == 0.75


def test_no_label_at_all_is_no_accuracy() -> None:
    """Not 0 and not an error: nothing was judged."""
    assert np.isnan(metrics.multilabel_accuracy(LOGITS, np.zeros_like(LABELS)))

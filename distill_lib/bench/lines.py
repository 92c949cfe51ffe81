"""Straight lines through measurements: what something costs at all, and what each more of it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Line:
    """A line y = intercept + slope * x.

    Attributes:
        intercept: y at x = 0.
        slope: growth of y for one more of x.
        r2: share of the variance of y that the line explains; 1 where y is constant.
    """

    intercept: float
    slope: float
    r2: float


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fits a line by least squares.

    Args:
        x: at least two different values.
        y: as many.
    """
    slope, intercept = (float(value) for value in np.polyfit(x, y, 1))
    rest = np.asarray(y) - (intercept + slope * np.asarray(x))
    total = float(np.square(np.asarray(y) - np.mean(y)).sum())
    return Line(intercept, slope, 1 - float(np.square(rest).sum()) / total if total else 1.0)

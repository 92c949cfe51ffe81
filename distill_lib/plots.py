"""Figures: data in, matplotlib Figure out; one function a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curve(rows: list[dict]) -> Figure:
    """Loss and validation accuracy of one run over its schedule.

    Args:
        rows: content of metrics.csv.
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["loss"] for row in rows])
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.plot(epochs, [100 * row["validation_top1"] for row in rows])
    right.set(xlabel="epoch", ylabel="validation top-1 (%)")
    return figure

"""Figures of benchmarks: rows of a record in, matplotlib Figure out; a figure without rows says so."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from distill_lib.bench import scaling
from distill_lib.figures.style import FAINT, INK, label_ends, panels, styled, ticks, without_data

Rows = list[dict[str, Any]]
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
SHAPES = ("o", "s", "^", "D", "P", "v")
MEASURED, FITTED = HUES[0], FAINT
NAMES = {
    "batch size": "images a step",
    "pixels": "side of an image (pixels)",
    "students": "students of a class",
    "training images": "training images",
}


@styled
def roofline(rows: Rows) -> Figure:
    """Operations a second against operations a byte, under the roofs that memory and matrix products make.

    Args:
        rows: of the benchmark `roofline`.
    """
    figure, (axes,) = panels(1, height=3.8)
    points = [row for row in rows if row["kind"] == "network"]
    if not points:
        return without_data(figure, axes)
    peaks = {row["case"]: row for row in rows if row["kind"] == "peak"}
    speed = peaks["triad"]["bytes/s"]
    roofs = {name.split()[0]: row["FLOP/s"] for name, row in peaks.items() if "FLOP/s" in row}
    intensities = [row["FLOP/byte"] for row in points]
    x = np.geomspace(min(intensities) / 3, max(*intensities, *(roof / speed for roof in roofs.values())) * 4, 200)
    ends = []
    for dtype, roof in roofs.items():
        axes.plot(x, np.minimum(speed * x, roof) / 1e9, color=INK if dtype == "float32" else FAINT, linewidth=1)
        ends.append((roof / 1e9, f"{dtype} products", INK if dtype == "float32" else FAINT))
    for row, colour, shape in zip(points, itertools.cycle(HUES), itertools.cycle(SHAPES), strict=False):
        name = f"{row['case']} ({row['dtype']})" if len({each["dtype"] for each in points}) > 1 else row["case"]
        axes.plot(row["FLOP/byte"], row["FLOP/s"] / 1e9, shape, color=colour, markersize=7, label=name)
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte read or written", ylabel="GFLOP/s")
    _plain(axes)
    axes.legend(loc="lower right", fontsize=8)
    _label_ends_log(axes, ends)
    return figure


@styled
def growth(rows: Rows) -> Figure:
    """Images a second along each axis, and what the line fitted to the time of a step says of it.

    Args:
        rows: of the benchmark `scaling`.
    """
    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    if not axes_names:
        figure, (axes,) = panels(1, height=2.4)
        return without_data(figure, axes)
    figure, several = panels(len(axes_names), height=2.5, sharey=True)
    figure.get_layout_engine().set(wspace=0.08)  # numbers at the ends of two axes would touch
    for axes, name in zip(several, axes_names, strict=True):
        here = [row for row in rows if row["axis"] == name]
        values = np.array([row["value"] for row in here], float)
        images = np.array([row["images/s"] * row["step"].median for row in here])  # in a step
        dense = np.geomspace(values[0], values[-1], 60)
        seconds = here[0]["intercept"] + here[0]["slope"] * np.array([scaling.amount(name, value) for value in dense])
        axes.plot(dense, np.interp(dense, values, images) / seconds, color=FITTED, linewidth=1)
        spread = [[images[i] / row["step"].high, images[i] / row["step"].low] for i, row in enumerate(here)]
        axes.vlines(values, *np.transpose(spread), color=MEASURED, linewidth=1)
        axes.plot(values, [row["images/s"] for row in here], "o", color=MEASURED)
        axes.set(xscale="log", xlabel=NAMES[name])
        ticks(axes, values)
    several[0].set_ylabel("images/s")
    several[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    several[0].set_ylim(bottom=0)
    return figure


@styled
def memory(rows: Rows, student: str) -> Figure:
    """Peak memory against class size, and against the batch with activations kept and computed again.

    Args:
        rows: of the benchmark `memory`.
        student: whose rows are shown.
    """
    shown = [row for row in rows if row["student"] == student]
    classes = sorted((row["students"], row["peak (MB)"]) for row in shown if row["axis"] == "class size")
    batches = [row for row in shown if row["axis"] == "batch size"]
    if len(classes) < 2 or not batches:
        figure, (axes,) = panels(1, height=2.7)
        return without_data(figure, axes)
    figure, (left, right) = panels(2, height=2.7)
    x, y = (np.array(each, float) for each in zip(*classes, strict=True))
    line = scaling.fit(x.tolist(), y.tolist())
    left.plot(x, line.intercept + line.slope * x, color=FITTED, linewidth=1)
    left.plot(x, y, "o", color=MEASURED)
    left.set(xlabel=NAMES["students"], title="peak memory (MB)", ylim=(0, 1.1 * y.max()))
    ends = []
    for remat, colour in ((False, HUES[1]), (True, HUES[2])):
        chosen = sorted((row["batch"], row["kept (MB)"]) for row in batches if row["remat"] is remat)
        if chosen:
            right.plot(*zip(*chosen, strict=True), "o-", color=colour)
            ends.append((chosen[-1][1], "computed again" if remat else "kept", colour))
    right.set(xlabel=NAMES["batch size"], title="kept for the gradient (MB)", ylim=(0, None))
    label_ends(right, ends)
    return figure


def _label_ends_log(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Names lines at the right end of a panel whose vertical axis is logarithmic."""
    last = float("inf")
    for height, text, colour in sorted(ends, reverse=True):
        last = min(height, last / 1.25)  # a line of text below the one above
        place = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
        axes.annotate(text, (1.02, last), color=colour, **place)


def _plain(axes: Axes) -> None:
    """Writes numbers rather than powers on two logarithmic axes."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_major_locator(LogLocator())
        axis.set_minor_locator(NullLocator())

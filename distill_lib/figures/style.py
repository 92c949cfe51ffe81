"""One look for every figure: colours, sizes, labels at the ends of lines instead of legends.

Figures are made without pyplot, so that none is kept, and show themselves in notebooks. Every policy has one colour and
one marker everywhere.
"""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from distill_lib.records import NOTHING

Drawing = TypeVar("Drawing", bound=Callable[..., Figure])

INK, FAINT = "#222222", "#8a8a8a"
WIDTH = 7.0  # inches: the book's text column
DATA = Path(__file__).parents[1] / "data"
STYLE = matplotlib.rc_params_from_file(DATA / "book.mplstyle", use_default_template=False)
# Okabe and Ito's palette, which stays apart under the common colour blindnesses; markers tell the policies apart again
_POLICIES = [*csv.reader((DATA / "policies.csv").read_text(encoding="utf-8").splitlines())][1:]
COLOURS = {policy: colour for policy, colour, _ in _POLICIES}
MARKERS = {policy: marker for policy, _, marker in _POLICIES}
styled: Callable[[Drawing], Drawing] = matplotlib.rc_context(STYLE)  # what it decorates draws in the book's style


class Picture(Figure):
    """A figure that notebooks show as SVG, the same bytes each time."""

    def _repr_svg_(self) -> str:
        return _saved(self, "svg", Date=None).decode()


class Raster(Figure):
    """A figure of pixels, which notebooks show as PNG."""

    def _repr_png_(self) -> bytes:
        return _saved(self, "png", Software=None)


def _saved(figure: Figure, kind: str, **metadata: None) -> bytes:
    data = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(data, format=kind, metadata=metadata)
    return data.getvalue()


def panels(count: int, *, height: float, kind: type[Figure] = Picture, **options: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure of the book's width with panels side by side; `height` in inches."""
    figure = kind(figsize=(WIDTH, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count, **options)))


def label_ends(axes: Axes, ends: Iterable[tuple[float, str, str] | tuple[float, str, str, float]]) -> None:
    """Writes names at the right edge without overlaps, by (height, text, colour[, place of the line's end]) of each."""
    ends = sorted(ends)
    bottom, top = axes.get_ylim()
    gap = (top - bottom) * 0.155 / (axes.get_figure().get_figheight() * 0.75)
    heights = [end[0] for end in ends]
    for _ in range(100):  # pushes neighbours apart, a little at a time, so that a cluster stays around its middle
        for i in range(len(heights) - 1):
            overlap = gap - (heights[i + 1] - heights[i])
            if overlap > 1e-6:
                heights[i] -= overlap / 2
                heights[i + 1] += overlap / 2
        excess = max(0.0, heights[-1] - top) if heights else 0.0
        heights = [height - excess for height in heights]
    edge, leader = ("axes fraction", "data"), {"arrowstyle": "-", "linewidth": 0.8, "linestyle": ":"}
    for (end, text, colour, *last), height in zip(ends, heights, strict=True):
        axes.annotate(text, (1.02, height), xycoords=edge, color=readable(colour), va="center", annotation_clip=False)
        if last:
            arrow = leader | {"color": colour, "shrinkA": 2, "shrinkB": 3}
            axes.annotate("", (last[0], end), (1.02, height), textcoords=edge, arrowprops=arrow)
    axes.set_ylim(bottom, top)


def readable(colour: str) -> str:
    """The colour, as dark as its words must be on white: a contrast of 4.5 to 1 (WCAG 2.2, success criterion 1.4.3)."""
    rgb = np.array(to_rgb(colour))
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05) >= 4.5:
            return str(to_hex(rgb))
        rgb *= 0.98


def ticks(axes: Axes, values: Iterable[float]) -> None:
    """Labels these values of a logarithmic horizontal axis, leaving out those that would touch a neighbour."""
    values, grid = sorted(set(values)), axes.get_gridspec()
    columns = grid.ncols if grid else 1
    share = {1: 0.1, 2: 0.28}.get(columns, 0.1 * columns)  # names at the ends of lines make two panels narrow
    apart = share * np.log(values[-1] / values[0])
    labelled = [values[-1]]
    for value in reversed(values[:-1]):
        if np.log(labelled[-1] / value) >= apart and (value == values[0] or np.log(value / values[0]) >= apart):
            labelled.append(value)
    axes.xaxis.set_major_locator(FixedLocator(sorted({values[0], *labelled})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:,.0f}")


def without_data(figure: Figure, axes: Axes) -> Figure:
    """Writes into an empty panel that there are no records yet, and returns the figure."""
    if len(figure.axes) == 1:
        figure.set_size_inches(WIDTH, 0.7)
    axes.set_axis_off()
    axes.text(0.5, 0.5, NOTHING, ha="center", va="center", color=FAINT, transform=axes.transAxes)
    return figure

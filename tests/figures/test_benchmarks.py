"""Figures of benchmarks: with rows, and without any."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure

from distill_lib import figures, records
from distill_lib.bench import scaling, timing
from distill_lib.figures import style

ROOFLINE = [
    {"kind": "peak", "case": "float32 matrix product", "FLOP/s": 1e11},
    {"kind": "peak", "case": "bfloat16 matrix product", "FLOP/s": 3e11},
    {"kind": "peak", "case": "triad", "bytes/s": 1e10},
    {"kind": "network", "case": "small", "dtype": "float32", "FLOP/byte": 3.0, "FLOP/s": 2e10},
    {"kind": "network", "case": "large", "dtype": "float32", "FLOP/byte": 30.0, "FLOP/s": 8e10},
]
STEPS = {value: timing.Timing(0.01 + 1e-4 * value, 0.009 + 1e-4 * value, 0.02 + 1e-4 * value, 3) for value in (8, 64)}
GROWTH = [
    row
    for axis in scaling.AXES
    for row in scaling.rows_of(axis, STEPS, {value: value if axis == "batch size" else 128 for value in STEPS})
]
MEMORY = [
    {"axis": "class size", "student": "made up", "students": count, "peak (MB)": 500.0 + count} for count in (1, 8)
] + [
    {"axis": "batch size", "student": "made up", "batch": batch, "remat": remat, "kept (MB)": batch * (1.0 + remat)}
    for batch in (8, 16)
    for remat in (False, True)
]
FIGURES: list[tuple[Callable[[list], Figure], list]] = [
    (figures.benchmarks.roofline, ROOFLINE),
    (figures.benchmarks.growth, GROWTH),
    (lambda rows: figures.benchmarks.memory(rows, "made up"), MEMORY),
]


@pytest.mark.parametrize(("draw", "rows"), FIGURES)
def test_figures_draw_with_rows_and_say_where_there_are_none(draw: Callable[[list], Figure], rows: list) -> None:
    for given, nothing in ((rows, False), ([], True)):
        figure = draw(given)
        assert isinstance(figure, style.Picture)
        assert figure._repr_svg_() == draw(given)._repr_svg_()
        words = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert (records.NOTHING in words) is nothing


def test_points_lie_where_they_were_measured_and_roofs_bend_at_the_peaks() -> None:
    (axes,) = figures.benchmarks.roofline(ROOFLINE).axes
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [(*point.get_xdata(), *point.get_ydata()) for point in points] == [(3.0, 20.0), (30.0, 80.0)]
    roofs = [max(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) > 1]
    assert roofs == pytest.approx([100, 300])


def test_the_line_through_steps_goes_through_the_points() -> None:
    """Where the times of a step are on a line, images a second are on the curve."""
    panel = figures.benchmarks.growth(GROWTH).axes[0]
    curve, dots = panel.lines
    assert list(curve.get_ydata()[[0, -1]]) == pytest.approx(list(dots.get_ydata()))

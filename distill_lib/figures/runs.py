"""Figures of runs: data in, matplotlib Figure out; one function a figure. A figure without data says so."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill_lib import records, views
from distill_lib.errors import DistillError
from distill_lib.figures.style import COLOURS, FAINT, INK, MARKERS, label_ends, panels, styled, ticks, without_data
from distill_lib.report import aggregate, differences
from distill_lib.report.differences import Difference


@styled
def training_curve(rows: list[dict[str, Any]]) -> Figure:
    """Loss and validation accuracy of one run over its schedule, from the content of its metrics.csv."""
    figure, (left, right) = panels(2, height=2.6)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["loss"] for row in rows], color=INK)
    left.set(xlabel="epoch", title="training loss", yscale="log")
    right.plot(epochs, [100 * row["validation_top1"] for row in rows], color=INK)
    right.set(xlabel="epoch", title="validation top-1 (%)")
    return figure


@styled
def accuracy(runs: pd.DataFrame, by: str = "setting") -> Figure:
    """Test accuracy by setting, or policy; a dot a run, a bar at the mean, and one far below as a number."""
    names = _present(runs) if by == "policy" else list(dict.fromkeys(runs[by]))
    groups = {views.NAMES.get(name, name): runs[runs[by] == name] for name in names}
    figure, (axes,) = panels(1, height=0.9 + 0.32 * max(len(groups), 2))
    if not groups:
        return without_data(figure, axes)
    low, high = np.quantile([100 * group["test_top1"].mean() for group in groups.values()], (0.25, 0.75))
    for place, group in enumerate(reversed(groups.values())):
        shares, policy = 100 * group["test_top1"], group["policy"].iloc[0]
        if shares.max() < low - 3 * (high - low) and len(groups) > 4:  # it would squeeze what is compared
            beside = {"xycoords": ("axes fraction", "data"), "va": "center", "color": COLOURS[policy]}
            axes.annotate(f"\N{LEFTWARDS ARROW} {shares.mean():.1f}", (0.01, place), **beside)
            continue
        axes.plot(shares, [place] * len(shares), MARKERS[policy], color=COLOURS[policy], alpha=0.6)
        axes.plot(shares.mean(), place, "|", color=COLOURS[policy], markersize=14, markeredgewidth=2)
    axes.set(xlabel="test top-1 (%)", ylim=(-0.6, len(groups) - 0.4))
    axes.set_yticks(range(len(groups)), labels=list(reversed(groups)))
    return figure


@styled
def patience(
    runs: pd.DataFrame, fresh: pd.DataFrame | None = None, teacher: float | None = None, hollow: str = "the fresh run"
) -> Figure:
    """Test accuracy by length, a line a policy through the means; a dot each run, hollow marks for fresh ones."""
    figure, (axes,) = panels(1, height=4.4)
    _accuracy_lines(axes, runs, teacher, fresh)
    if fresh is not None and len(fresh):
        axes.set_title(f"hollow marks: {hollow}", color=FAINT)
    return figure


@styled
def paper_and_study(paper: pd.DataFrame, runs: pd.DataFrame, teacher: float | None = None) -> Figure:
    """The paper's numbers on ImageNet, as of `paper_numbers.curves`, beside this study's, as `patience` draws them."""
    figure, (left, right) = panels(2, height=3.5)
    _accuracy_lines(left, paper, None)
    _accuracy_lines(right, runs, teacher)
    left.set(title="the paper: ImageNet, ResNet-50 student", ylabel="top-1 (%)")
    right.set(title="this book: Fashion-MNIST, small student", ylabel="")
    return figure


def _accuracy_lines(axes: Axes, runs: pd.DataFrame, teacher: float | None, fresh: pd.DataFrame | None = None) -> None:
    of_teacher, runs = runs.loc[runs["policy"] == "teacher", "test_top1"], runs[runs["policy"] != "teacher"]
    teacher = float(of_teacher.iloc[0]) if teacher is None and len(of_teacher) else teacher
    hollow = runs.iloc[:0] if fresh is None else fresh
    if runs.empty and hollow.empty:
        without_data(axes.get_figure(), axes)
        return
    ends: list[Any] = []
    for policy in _present(runs):
        own, colour = runs[runs["policy"] == policy], COLOURS[policy]
        means = aggregate.summary(own, by=("epochs",))
        axes.plot(means["epochs"], 100 * means["mean"], "-" + MARKERS[policy], color=colour)
        axes.plot(own["epochs"], 100 * own["test_top1"], ".", color=colour, alpha=0.5, markersize=7, markeredgewidth=0)
        ends.append((100 * means["mean"].iloc[-1], _name(runs, policy), colour, means["epochs"].iloc[-1]))
    for policy, epochs, share in zip(hollow["policy"], hollow["epochs"], hollow["test_top1"], strict=True):
        axes.plot(epochs, 100 * share, MARKERS[policy], color=COLOURS[policy], mfc="white", markersize=7)
    if teacher is not None:
        axes.axhline(100 * teacher, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        ends.append((100 * teacher, "the teacher", INK))
    _epochs_axis(axes, [*runs["epochs"], *hollow["epochs"]])
    axes.set_ylabel("test top-1 (%)")
    label_ends(axes, ends)


@styled
def gaps(paper: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """How far each policy lies above consistent teaching by length; bars of runs are 95 % intervals, each by itself."""
    figure, (left, right) = panels(2, height=3.4, width_ratios=(1, 1.15))
    for axes, frame, title in ((left, paper, "the paper: ImageNet"), (right, runs, "this book: Fashion-MNIST")):
        axes.set_title(title)
        ends: list[Any] = []
        for policy in _present(frame):
            compared = differences.at_every_length(frame, policy, "same/ic") if policy != "same/ic" else []
            if not compared:
                continue
            last = line_of_differences(axes, [each.epochs for each in compared], compared, policy)
            ends.append((last, _name(frame, policy), COLOURS[policy], compared[-1].epochs))
        if not ends:
            without_data(figure, axes)
            continue
        axes.axhline(0, color=COLOURS["same/ic"], linewidth=1)
        _epochs_axis(axes, frame["epochs"])
        label_ends(axes, [*ends, (0.0, views.NAMES["same/ic"], COLOURS["same/ic"])])
    left.set_ylabel("points above consistent teaching")
    return figure


def line_of_differences(axes: Axes, places: list[float], known: list[Difference], policy: str, **look: Any) -> float:
    """A line of differences in points with their 95 % intervals; returns where it ends."""
    y = [100 * each.value for each in known]
    reach = np.nan_to_num([100 * (each.high - each.value) for each in known])
    axes.errorbar(places, y, reach, fmt=MARKERS[policy] + "-", color=COLOURS[policy], elinewidth=1, **look)
    return y[-1]


def save_patience(path: Path) -> None:
    """Saves the study's first figure, of all records, in the format that the path's suffix names; or DistillError."""
    runs = records.read()
    figure = patience(aggregate.study(runs), None, aggregate.teacher_top1(runs))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)
    except ValueError as error:  # of Matplotlib, which lists the formats that it knows
        raise DistillError(str(error)) from error


def _present(runs: pd.DataFrame) -> list[str]:
    return [policy for policy in aggregate.ORDER if policy in set(runs["policy"])]


def _epochs_axis(axes: Axes, lengths: Iterable[float]) -> None:
    axes.set(xscale="log", xlabel="length of the schedule (epochs)")
    ticks(axes, lengths)


def _name(frame: pd.DataFrame, policy: str) -> str:
    return str(frame.loc[frame["policy"] == policy, "name"].iloc[0]) if "name" in frame else views.NAMES[policy]

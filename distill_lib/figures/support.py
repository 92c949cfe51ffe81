"""Figures of what mixup adds, by the number of training images and of steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from distill_lib import views
from distill_lib.figures.style import COLOURS, MARKERS, label_ends, panels, styled, ticks, without_data
from distill_lib.report.support import POLICIES, Gains


@styled
def gains(known: Gains) -> Figure:
    """Function matching minus consistent teaching, a line for each number of steps; bars are 95 % intervals."""
    figure, (axes,) = panels(1, height=3.2)
    if not known:
        return without_data(figure, axes)
    lengths, ends = sorted({steps for steps, _ in known}), []
    for shade, steps in zip(np.linspace(1, 0.4, len(lengths)), reversed(lengths), strict=True):
        own = {images: gain for (each, images), gain in known.items() if each == steps}
        nudge = 1 + 0.03 * lengths.index(steps)  # so that bars of two lengths do not hide each other
        y = [100 * gain.value for gain in own.values()]
        reach = np.nan_to_num([100 * (gain.high - gain.value) for gain in own.values()])
        places = [images * nudge for images in own]
        axes.errorbar(places, y, reach, fmt="P-", color=COLOURS["mix"], alpha=shade, elinewidth=1)
        ends.append((y[-1], f"{steps:,} steps", COLOURS["mix"]))
    axes.axhline(0, color=COLOURS["same/ic"], linewidth=1)
    axes.set(xscale="log", xlabel="training images", ylabel="points that mixup adds")
    ticks(axes, {images for _, images in known})
    label_ends(axes, [*ends, (0.0, views.NAMES["same/ic"], COLOURS["same/ic"])])
    return figure


@styled
def divergences(own: pd.DataFrame) -> Figure:
    """Divergence from the teacher on whole training images and on test images: a panel a number of steps.

    The rows are those of `report.support.pairs`.
    """
    lengths = sorted(own["steps"].unique())
    figure, several = panels(max(len(lengths), 1), height=3.0, sharey=True)
    if not lengths:
        return without_data(figure, several[0])
    for axes, steps in zip(several, lengths, strict=True):
        ends = []
        for policy in POLICIES:
            here = own[(own["steps"] == steps) & (own["policy"] == policy)].groupby("images")
            for split, line in (("train", (0, (2, 2))), ("test", "-")):
                means, colour = here[f"{split}_kl"].mean(), COLOURS[policy]
                axes.plot(means.index, means, color=colour, marker=MARKERS[policy], linestyle=line)
                ends.append((means.iloc[-1], f"{policy}, {split}", colour))
        axes.set(xscale="log", xlabel="training images", title=f"{steps:,} steps", ylim=(0, None))
        ticks(axes, own["images"])
        label_ends(axes, ends if axes is several[-1] else [])
    several[0].set_ylabel("KL from the teacher")
    return figure


@styled
def demonstration(known: pd.DataFrame, fresh: pd.DataFrame) -> Figure:
    """Validation accuracy during training, from `records.curves`: runs of the book thin, those of this machine bold."""
    figure, (axes,) = panels(1, height=3.4)
    if known.empty and fresh.empty:
        return without_data(figure, axes)
    ends = {}
    for curves, width in ((known, 0.7), (fresh, 2.4)):
        for (_, policy), run in curves.groupby(["run_id", "policy"]) if len(curves) else ():
            top1, colour = 100 * run["validation_top1"], COLOURS[policy]
            axes.plot(run["step"], top1, color=colour, linewidth=width)
            ends[policy] = (top1.iloc[-1], views.NAMES[policy], colour)
    axes.set(xlabel="step", ylabel="validation top-1 (%)", xlim=(0, None))
    label_ends(axes, ends.values())
    return figure

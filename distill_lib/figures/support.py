"""Figures of what mixup adds, by the number of training images and of steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from distill_lib import views
from distill_lib.figures.style import COLOURS, MARKERS, label_ends, panels, styled, ticks, without_data
from distill_lib.report import aggregate
from distill_lib.report.support import POLICIES, Gains


@styled
def gains(known: Gains) -> Figure:
    """Function matching minus consistent teaching, a line for each number of steps; bars are 95 % intervals.

    Args:
        known: from `report.support.gains`.
    """
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
    """Divergence from the teacher on whole training images and on test images, by images: a panel a number of steps.

    Args:
        own: rows of `report.support.pairs`.
    """
    lengths = sorted(own["steps"].unique())
    figure, several = panels(max(len(lengths), 1), height=3.0, sharey=True)
    if not lengths:
        return without_data(figure, several[0])
    for axes, steps in zip(several, lengths, strict=True):
        ends = []
        for policy in POLICIES:
            here = own[(own["steps"] == steps) & (own["policy"] == policy)]
            for split, line in (("train", (0, (2, 2))), ("test", "-")):
                means = aggregate.summary(here, f"{split}_kl", ("images",))
                style = {"color": COLOURS[policy], "marker": MARKERS[policy], "linestyle": line}
                axes.plot(means["images"], means["mean"], **style)
                ends.append((float(means["mean"].iloc[-1]), f"{policy}, {split}", COLOURS[policy]))
        axes.set(xscale="log", xlabel="training images", title=f"{steps:,} steps", ylim=(0, None))
        ticks(axes, set(own["images"]))
        label_ends(axes, ends if axes is several[-1] else [])
    several[0].set_ylabel("KL from the teacher")
    return figure


@styled
def demonstration(known: pd.DataFrame, fresh: pd.DataFrame) -> Figure:
    """Validation accuracy during training: runs of the book as thin lines, those of this machine as bold ones.

    Args:
        known: rows of `records.curves`.
        fresh: likewise.
    """
    figure, (axes,) = panels(1, height=3.4)
    both = [each.assign(width=width) for each, width in ((known, 0.7), (fresh, 2.4)) if len(each)]
    every = pd.concat(both or [known])
    if every.empty:
        return without_data(figure, axes)
    ends = {}
    for (_, policy, width), run in every.groupby(["run_id", "policy", "width"]):
        top1 = 100 * run["validation_top1"]
        axes.plot(run["step"], top1, color=COLOURS[policy], linewidth=width)
        ends[policy] = (float(top1.iloc[-1]), views.NAMES[policy], COLOURS[policy])
    axes.set(xlabel="step", ylabel="validation top-1 (%)", xlim=(0, None))
    label_ends(axes, ends.values())
    return figure

"""The figure of what mixup adds, by the number of training images and of steps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from distill_lib import views
from distill_lib.figures.style import COLOURS, label_ends, panels, styled, ticks, without_data
from distill_lib.report.support import Gains


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

"""When training goes wrong: what of a step's loss and gradient says so, for runs that go back (`on_divergence`).

Such a run goes back to its last report, which is a fixed step, and on with the batches after the one that went wrong:
those in between are skipped. So it does not matter where it is killed.

References:
    Chowdhery et al., "PaLM: Scaling language modeling with pathways", 2022, section 5.1: restart before a spike of the
    loss, and skip the batches around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPIKE = 30.0  # times the median of the steps before; healthy runs were seen to reach 6
STEPS = 100  # whose median that is
FEWEST = 10  # before which no number is a spike
MOST_REWINDS = 10  # of a run, which then goes on as one that does not go back


def problem(last: Sequence[float], before: Sequence[Sequence[float]]) -> str | None:
    """What is wrong with loss and gradient of a step, in words; None where nothing is.

    Args:
        last: loss and length of the gradient.
        before: those of the steps before.
    """
    usual = np.median(before, axis=0) if len(before) >= FEWEST else [np.inf, np.inf]
    for name, value, median in zip(("loss", "gradient's length"), last, usual, strict=True):
        if not np.isfinite(value):
            return f"the {name} is {value}"
        if value > SPIKE * median:
            return f"the {name} is {value:.3g}, and usually {median:.3g}"
    return None

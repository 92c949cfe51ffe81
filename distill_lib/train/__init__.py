"""Training: a step, the loop over it, one student or a whole sweep of them, and its checkpoints."""

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.train.student import Run
    from distill_lib.train.sweeps import GRIDS, finished, fit, grid, sweep

__all__ = ["GRIDS", "Run", "finished", "fit", "grid", "sweep"]

__getattr__ = loader(__name__, {"student": ["Run"], "sweeps": ["GRIDS", "finished", "fit", "grid", "sweep"]})

"""The book's figures: of runs, views, the method, what is recognised, and benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.figures import benchmarks, method, recognition, runs, views

__all__ = ["benchmarks", "method", "recognition", "runs", "views"]

__getattr__ = loader(
    __name__,
    {
        "benchmarks": [],
        "method": [],
        "recognition": [],
        "runs": [],
        "views": [],
    },
)

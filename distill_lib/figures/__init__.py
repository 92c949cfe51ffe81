"""The book's figures: of runs, views, the method, and what is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.figures import method, recognition, runs, views

__all__ = ["method", "recognition", "runs", "views"]

__getattr__ = loader(
    __name__,
    {
        "method": [],
        "recognition": [],
        "runs": [],
        "views": [],
    },
)

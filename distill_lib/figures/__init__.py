"""The book's figures: of runs, views, the method, and photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.figures import method, photographs, runs, support, views

__all__ = ["method", "photographs", "runs", "support", "views"]

__getattr__ = loader(__name__, {name: [] for name in __all__})

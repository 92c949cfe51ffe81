"""The book's figures: of runs, views, the method, and photographs, and what live ones need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.figures import live, method, photographs, runs, support, views

__all__ = ["live", "method", "photographs", "runs", "support", "views"]

__getattr__ = loader(__name__, {name: [] for name in __all__})

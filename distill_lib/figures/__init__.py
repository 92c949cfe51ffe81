"""The book's figures: of runs, views and photographs, and what live ones need."""

from distill_lib.figures import live, photographs, runs, views

__all__ = ["live", "photographs", "runs", "views"]

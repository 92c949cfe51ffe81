"""Recipes: everything that decides a run's result, as data, and the presets that have a name."""

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.recipes.recipe import Recipe
    from distill_lib.recipes.resolve import get, names, variants

__all__ = ["Recipe", "get", "names", "variants"]

__getattr__ = loader(__name__, {"recipe": ["Recipe"], "resolve": ["get", "names", "variants"]})

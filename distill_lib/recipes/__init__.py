"""Recipes: everything that decides a run's result, as data, and the presets that have a name."""

from distill_lib.recipes.presets import get, names, variants
from distill_lib.recipes.recipe import Recipe

__all__ = ["Recipe", "get", "names", "variants"]

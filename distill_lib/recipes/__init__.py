"""Recipes: everything that decides a run's result, as data, and the presets that have a name."""

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.recipes.presets import get, names, variants
    from distill_lib.recipes.recipe import Recipe

__all__ = ["Recipe", "get", "names", "variants"]

__getattr__ = loader(__name__, {"recipe": ["Recipe"], "presets": ["get", "names", "variants"]})

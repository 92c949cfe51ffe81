"""Which records belong to a recipe: those with the same settings in all that decides the result but chance."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_lib.recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

PRETRAINED = "pretrained"
"""Stands for the start of a student that continues another run, which `experiments.plan` is told."""
CHANCE = ("variant", "seed", "view_seed", "evaluations")
"""Fields that runs of one experiment may differ in."""
_DEFAULTS = {
    field.name: None if field.default is dataclasses.MISSING else field.default for field in dataclasses.fields(Recipe)
}


def of_recipe(runs: "pd.DataFrame", recipe: Recipe, **others: Any) -> "pd.DataFrame":
    """The rows of `records.read` that repeat a recipe, of its own variant or else of any; of each seed the first.

    Fields that they lack are at their default, a teacher counts only where there is one, and `PRETRAINED` is any start.
    `others` are values, or functions that say whether a value will do, in place of the recipe's.
    """
    if "dataset" not in runs:
        return runs.iloc[:0]
    if recipe.start == PRETRAINED:
        others = {"start": lambda start: start is not None} | others
    unneeded = CHANCE if recipe.has_teacher else (*CHANCE, "teacher", "temperature", "ensemble")
    kept = np.arange(len(runs))  # rows, since a table that is cut for every field is slow
    for name, value in (dataclasses.asdict(recipe) | others).items():
        if name not in unneeded and len(kept):
            kept = kept[_fits(values(runs, name, kept), value)]
    runs = runs.iloc[kept]
    own = runs["variant"] == recipe.variant
    return (runs[own] if own.any() else runs).drop_duplicates("seed")


def having(runs: "pd.DataFrame", name: str, wanted: Any) -> "pd.DataFrame":
    """The records with this value in a field of their recipes, or one of which the function `wanted` is true."""
    return runs[_fits(values(runs, name), wanted)]


def _fits(known: list[Any], wanted: Any) -> np.ndarray:
    return np.array([wanted(value) if callable(wanted) else value == wanted for value in known], bool)


def values(runs: "pd.DataFrame", name: str, rows: np.ndarray | slice = slice(None)) -> list[Any]:
    """A field of the recipes of records, or of some rows, at its default where a record is older than the field."""
    recorded = runs[name].iloc[rows] if name in runs else [None] * len(runs.index[rows])
    return [_DEFAULTS[name] if value is None or value != value else value for value in recorded]  # NaN is unequal

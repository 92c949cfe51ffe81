"""Which records belong to a recipe: those with the same settings in all that decides the result but chance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from distill_lib.recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

CHANCE = ("variant", "seed", "view_seed", "evaluations")
"""Fields that runs of one experiment may differ in."""
_DEFAULTS = {
    field.name: None if field.default is dataclasses.MISSING else field.default for field in dataclasses.fields(Recipe)
}


def of_recipe(runs: pd.DataFrame, recipe: Recipe, **others: Any) -> pd.DataFrame:
    """The records that repeat a recipe, under whatever seed; fields that they lack are at their default.

    Those of its own variant, where there are such; else those of any: presets may share all settings.

    Args:
        runs: the table of `records.read`.
        recipe: what they repeat. Without a teacher, its name and the temperature do not count.
        **others: values, or functions that say whether a value will do, that stand in for the recipe's.

    Returns:
        Rows of the table; of each seed the first.
    """
    if "dataset" in runs:  # most records are of another set, and a column is quicker to look at than a row
        runs = runs[runs["dataset"] == recipe.dataset]
    if runs.empty or "run_id" not in runs:
        return runs.iloc[:0]
    unneeded = CHANCE if recipe.has_teacher else (*CHANCE, "teacher", "temperature", "ensemble")
    fields = {name: value for name, value in dataclasses.asdict(recipe).items() if name not in unneeded} | others
    kept = [all(_fits(run, name, value) for name, value in fields.items()) for run in runs.to_dict("records")]
    found = runs[kept]
    if "variant" in found and (own := found["variant"] == recipe.variant).any():
        found = found[own]
    return found.drop_duplicates("seed")


def value_of(run: Mapping[str, Any], name: str) -> Any:
    """A field of a record's recipe, or its default where the record is older than the field."""
    value = run.get(name)
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return _DEFAULTS[name] if missing else value


def _fits(run: Mapping[str, Any], name: str, wanted: Any | Callable[[Any], bool]) -> bool:
    value = value_of(run, name)
    return wanted(value) if callable(wanted) else value == wanted

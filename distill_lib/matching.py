"""Which records belong to a recipe: those with the same settings in all that decides the result but chance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from distill_lib.recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

CHANCE = ("variant", "seed", "view_seed", "evaluations", "dtype")
"""Fields that runs of one experiment may differ in."""
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}
_DECIDING = [name for name in _DEFAULTS if name not in CHANCE]

Wanted = Mapping[str, Any]
"""Fields of a recipe, and for each the value that it must have, or a function that says whether a value will do."""


def of_recipe(runs: pd.DataFrame, recipe: Recipe, **others: Any) -> pd.DataFrame:
    """The records that repeat a recipe, under whatever variant and seed; each seed once.

    Args:
        runs: the table of `records.read`.
        recipe: what they repeat. Without a teacher, its name and the temperature do not count.
        **others: values, or functions of a value, that stand in for the recipe's.
    """
    if "dataset" in runs:  # most records are of another set, and a column is quicker to look at than a row
        runs = runs[runs["dataset"] == recipe.dataset]
    unneeded = CHANCE if recipe.has_teacher else (*CHANCE, "teacher", "temperature", "ensemble")
    fields = {name: value for name, value in dataclasses.asdict(recipe).items() if name not in unneeded}
    return matching(runs, fields | others)


def matching(runs: pd.DataFrame, wanted: Wanted) -> pd.DataFrame:
    """The records whose fields are as wanted; what an older record does not hold is taken to be the default.

    Args:
        runs: the table of `records.read`.
        wanted: values, or functions of a value, by field.

    Returns:
        Rows of the table, of equal settings and seed only the first.
    """
    if runs.empty or "run_id" not in runs:
        return runs.iloc[:0]
    kept = [all(_fits(run, name, value) for name, value in wanted.items()) for run in runs.to_dict("records")]
    found = runs[kept]
    first: dict[tuple[str, ...], int] = {}
    for number, run in enumerate(found.to_dict("records")):
        first.setdefault(tuple(str(value_of(run, name)) for name in (*_DECIDING, "seed")), number)
    return found.iloc[list(first.values())]


def value_of(run: Mapping[str, Any], name: str) -> Any:
    """A field of a record's recipe, or its default where the record is older than the field."""
    value = run.get(name)
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return _default(name) if missing else value


def _fits(run: Mapping[str, Any], name: str, wanted: Any | Callable[[Any], bool]) -> bool:
    value = value_of(run, name)
    return wanted(value) if callable(wanted) else value == wanted


def _default(name: str) -> Any:
    default = _DEFAULTS[name]
    return None if default is dataclasses.MISSING else default

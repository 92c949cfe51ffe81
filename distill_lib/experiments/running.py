"""The runs of a notebook: trained where they are missing, and only read while the book is built."""

import dataclasses
import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill_lib import datasets, records
from distill_lib.experiments import matching, plans
from distill_lib.experiments.matching import PRETRAINED

if TYPE_CHECKING:
    import pandas as pd

    from distill_lib.recipes import Recipe

READ_ONLY = "DISTILL_READ_ONLY"
"""The variable that keeps notebooks from training. The book's build sets it."""


def run(plan: "Sequence[Recipe]", results: str | os.PathLike[str] | None = None, **options: Any) -> "pd.DataFrame":
    """Trains what a plan lacks, or where `DISTILL_READ_ONLY` is set only reads; returns `records.read`.

    Options and errors are those of `train.sweep`; a run that fails alone is told, and the others go on. Recipes that
    start from `PRETRAINED` come last, and continue the plan's run of their variant, policy and seed. Mock records are
    read only where the plan is for mock data.
    """
    if os.environ.get(READ_ONLY):
        runs = records.read(results)
        print(f"{len(select(runs, plan))} of these {len(plan)} students have records; nothing is trained here.")
        return runs
    from distill_lib import train

    for dataset in dict.fromkeys(recipe.dataset for recipe in plan):
        datasets.check(dataset, mock=any(recipe.variant == "smoke" for recipe in plan))
    first, later = ([recipe for recipe in plan if (recipe.start == PRETRAINED) == last] for last in (False, True))
    ended = train.finished(train.sweep(first, results, **options))
    shared = operator.itemgetter("variant", "policy", "seed")
    names = {shared(run.record["recipe"]): run.reference for run in ended}
    starts = [(recipe, names.get(shared(dataclasses.asdict(recipe)))) for recipe in later]
    if begun := [dataclasses.replace(recipe, start=name) for recipe, name in starts if name]:
        train.finished(train.sweep(begun, results, **options))
    return records.read(results, mock=ended[0].record["mock"])


def select(runs: "pd.DataFrame", plan: "Sequence[Recipe]") -> "pd.DataFrame":
    """The rows of `records.read` that repeat the recipes of a plan, each with its own seed, in the plan's order."""
    import pandas as pd

    known = [matching.of_recipe(runs, recipe) for recipe in plan]
    own = [rows[rows["seed"] == recipe.seed] for rows, recipe in zip(known, plan, strict=True) if len(rows)]
    return pd.concat(own).drop_duplicates("run_id") if own else runs.iloc[:0]


def pretrained(dataset: str, variant: str | None = None, results: str | os.PathLike[str] | None = None) -> str | None:
    """Trains the run whose student those of `initialization` start from, as `train.fit`: a `start` for `plan`.

    None where the presets name a published file, and a stand-in for any start where `DISTILL_READ_ONLY` is set.
    """
    before = plans.pretraining(dataset, variant)
    if not before or os.environ.get(READ_ONLY):
        return PRETRAINED if before else None
    from distill_lib import train

    return train.fit(before[0], results).reference

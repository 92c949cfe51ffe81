"""What it takes to repeat an experiment: the command, the students, and the time that records or operations tell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import experiments, views
from distill_lib.experiments import PRETRAINED
from distill_lib.report import aggregate, comparisons, cost

if TYPE_CHECKING:
    from distill_lib.recipes import Recipe

EMBEDDED = "fashion"
SEEDS = (0, 1, 2)
"""Of the embedded set; the paper's own runs have one."""
_OWN_VIEWS = ("consistency", "patience", "imagenet")
"""Experiments whose seeds have views of their own, as the study's runs have, and so are no sweep."""


def command(name: str, dataset: str) -> str:
    """What to type to train all settings of an experiment on a data set: on the paper's sets with one seed, as it did.

    On the embedded set everything is trained anew, in a folder of its own: records of these runs come with the book.
    """
    options = "" if dataset == EMBEDDED else ' -p seeds "[0]"'
    if (name, dataset) == ("consistency", EMBEDDED):
        options = f' -p variant medium -p policies "[{", ".join(views.POLICIES)}]" -p seeds "{[*SEEDS]}"'
    return f"nox -s run -- {name} -p dataset {dataset}{options}{' -p results again' if dataset == EMBEDDED else ''}"


def told(runs: pd.DataFrame, name: str) -> str:
    """How to repeat an experiment on the embedded set and what that takes, in Markdown."""
    own, planned = _records(runs, name), len(_plan(name, EMBEDDED))
    text = f"To repeat it: `{command(name, EMBEDDED)}`. That is {planned} students"
    if own.empty:
        return f"{text}; there are no records yet that say how long they take."
    absent = _without_records(own, name)
    rest = f", without {absent} of them, of which there are no records yet" if absent else ""
    return f"{text}, and took {_minutes(own, name)} on {', '.join(sorted(set(own['device'])))}{rest}."


def table(runs: pd.DataFrame, device: str = cost.DEVICE, dataset: str | None = None) -> pd.DataFrame:
    """Every experiment on every data set: what to type and what it costs.

    Args:
        runs: the table of `records.read`.
        device: what the hours of the paper's sets are given for.
        dataset: only this one; None takes all.

    Returns:
        Text, a row an experiment and data set: experiment, data, students, time, type.
    """
    rows = []
    for name, experiment in experiments.EXPERIMENTS.items():
        for each in [each for each in experiment.settings if dataset in (None, each)]:
            plan = _plan(name, each)
            time = _minutes(_records(runs, name), name) if each == EMBEDDED else _hours(plan, device, runs)
            row = {"experiment": experiment.title, "data": each, "students": f"{len(plan):,}", "time": time}
            rows.append(row | {"type": f"`{command(name, each)}`"})
    return pd.DataFrame(rows)


def _minutes(own: pd.DataFrame, name: str) -> str:
    """Wall time of all seeds on the embedded set, which students of a sweep share; a plus if some are missing."""
    if own.empty:
        return "unknown"
    each = aggregate.own_seconds(own).groupby(own["recipe"]).median()  # a run that was put to sleep tells nothing
    return f"{len(SEEDS) * each.sum() / 60:,.0f}{'+' if _without_records(own, name) else ''} minutes"


def _hours(plan: Sequence[Recipe], device: str, runs: pd.DataFrame) -> str:
    """Device-hours of recipes, each by itself."""
    known = [cost.of_recipe(recipe, device, runs).hours for recipe in plan]
    hours = math.fsum(math.nan if each is None else each for each in known)
    return "unknown" if math.isnan(hours) else f"{hours:,.{0 if hours >= 10 else 1}f} hours"


def _records(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """All records of an experiment on the embedded set, with the number of their recipe among those that are tried."""
    numbered = enumerate(_recipes(name))
    return pd.concat(
        [comparisons.of_recipe(runs, recipe).assign(recipe=number) for number, recipe in numbered], ignore_index=True
    )


def _without_records(own: pd.DataFrame, name: str) -> int:
    """How many of the planned students have no record."""
    known = set(zip(own["recipe"], own["seed"], strict=True))
    return len(set(itertools.product(range(len(_recipes(name))), SEEDS)) - known)


def _recipes(name: str) -> list[Recipe]:
    """What an experiment trains on the embedded set with one seed."""
    settings = experiments.settings(name, EMBEDDED)
    return [recipe for each in settings for recipe in experiments.recipes_of(each, EMBEDDED, start=PRETRAINED)]


def _plan(name: str, dataset: str) -> Sequence[Recipe]:
    seeds = SEEDS if dataset == EMBEDDED else SEEDS[:1]
    return experiments.plan(name, dataset, seeds=seeds, start=PRETRAINED, shared_views=name not in _OWN_VIEWS)

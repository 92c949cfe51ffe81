"""What it takes to repeat an experiment: the command, the students, and the time that records or operations tell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import experiments, views
from distill_lib.experiments import PRETRAINED
from distill_lib.report import aggregate, budget, comparisons

if TYPE_CHECKING:
    from distill_lib.recipes import Recipe

EMBEDDED = "fashion"
SEEDS = (0, 1, 2)
"""Of the embedded set; the paper's own runs have one."""
_AGAIN = " -p results again"
"""Has everything trained anew, in a folder of its own: records of the same runs come with the book."""
_SINGLE = ' -p seeds "[0]"'
_OPTIONS = {
    ("consistency", EMBEDDED): f' -p variant medium -p policies "[{", ".join(views.POLICIES)}]" -p seeds "{[*SEEDS]}"'
}
_OWN_VIEWS = ("consistency", "patience", "imagenet")
"""Experiments whose seeds have views of their own, as the study's runs have, and so are no class."""


def command(name: str, dataset: str) -> str:
    """What to type to train all arms of an experiment on a data set: on the paper's sets with one seed, as it did."""
    options = _OPTIONS.get((name, dataset), "") + _AGAIN if dataset == EMBEDDED else _SINGLE
    return f"nox -s run -- {name} -p dataset {dataset}{options}"


def told(runs: pd.DataFrame, name: str) -> str:
    """How to repeat an experiment on the embedded set and what that takes, in Markdown."""
    return f"To repeat it: `{command(name, EMBEDDED)}`. {_took(runs, name)}"


def table(runs: pd.DataFrame, device: str = budget.DEVICE, dataset: str | None = None) -> pd.DataFrame:
    """Every experiment on every data set: what to type and what it costs.

    Args:
        runs: the table of `records.read`.
        device: what the hours of the paper's sets are given for.
        dataset: only this one; None takes all.

    Returns:
        Text, a row an experiment and data set: experiment, data, students, time, type.
    """
    cases = [(name, each) for name, one in experiments.EXPERIMENTS.items() for each in one.arms]
    return pd.DataFrame(_row(name, each, device, runs) for name, each in cases if dataset in (None, each))


def _row(name: str, dataset: str, device: str, runs: pd.DataFrame) -> dict[str, str]:
    plan = _plan(name, dataset)
    return {
        "experiment": experiments.get(name).title,
        "data": dataset,
        "students": f"{len(plan):,}",
        "time": _minutes(_records(runs, name), name) if dataset == EMBEDDED else _hours(plan, device, runs),
        "type": command(name, dataset),
    }


def _took(runs: pd.DataFrame, name: str) -> str:
    """Students and time of an experiment on the embedded set, as sentences."""
    found = _records(runs, name)
    planned, absent = len(_plan(name, EMBEDDED)), _without_records(found, name)
    if found.empty:
        return f"That is {planned} students; there are no records yet that say how long they take."
    rest = f", without {absent} of them, of which there are no records yet" if absent else ""
    devices = ", ".join(sorted(set(found["device"])))
    return f"That is {planned} students, and took {_minutes(found, name)} on {devices}{rest}."


def _minutes(found: pd.DataFrame, name: str) -> str:
    """Wall time of all seeds on the embedded set, which students of a class share; a plus if some are missing."""
    if found.empty:
        return "unknown"
    own = aggregate.own_seconds(found)
    each = own.groupby(found["recipe"]).median()  # a run that was put to sleep says nothing of the others
    more = "+" if _without_records(found, name) else ""
    return f"{len(SEEDS) * each.sum() / 60:,.0f}{more} minutes"


def _hours(plan: Iterable[Recipe], device: str, runs: pd.DataFrame) -> str:
    """Device-hours of recipes, each by itself."""
    known = [budget.budget(recipe, device, runs).hours for recipe in plan]
    if None in known:
        return "unknown"
    hours = math.fsum(each for each in known if each is not None)
    return f"{hours:,.{0 if hours >= 10 else 1}f} hours"


def _records(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """All records of an experiment on the embedded set, with the number of their recipe among those that are tried."""
    found = [
        comparisons.of_settings(runs, recipe).assign(recipe=number) for number, recipe in enumerate(_settings(name))
    ]
    return pd.concat(found, ignore_index=True)


def _without_records(found: pd.DataFrame, name: str) -> int:
    """How many of the planned students have no record."""
    known = set(zip(found["recipe"], found["seed"], strict=True)) if len(found) else set()
    return len(set(itertools.product(range(len(_settings(name))), SEEDS)) - known)


def _settings(name: str) -> list[Recipe]:
    """What an experiment trains on the embedded set with one seed."""
    arms = experiments.arms(name, EMBEDDED)
    return [recipe for arm in arms for recipe in experiments.recipes_of(arm, EMBEDDED, start=PRETRAINED)]


def _plan(name: str, dataset: str) -> Sequence[Recipe]:
    seeds = SEEDS if dataset == EMBEDDED else SEEDS[:1]
    return experiments.plan(name, dataset, seeds=seeds, start=PRETRAINED, shared_views=name not in _OWN_VIEWS)

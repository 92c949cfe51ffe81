"""Experiments by name: their arms as recipes that can be run. What the records say about them is in `comparisons`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from distill_lib import recipes
from distill_lib.errors import DistillError, unknown
from distill_lib.experiments.definitions import EXPERIMENTS, PRETRAINED, Arm, Experiment
from distill_lib.recipes import Recipe, presets

BUDGET = {"fashion": "compare"}
"""The preset whose settings and length all arms share that do not name one, by data set."""
TEACHER = {"fashion_teacher": "full"}
"""The preset that makes a teacher, by data set; that of the paper's sets is `teacher`."""


def budget(dataset: str) -> Recipe:
    """The preset whose settings and length arms share on a data set that has such a one."""
    return recipes.get(dataset, BUDGET[dataset])


def get(name: str) -> Experiment:
    """Looks up an experiment; raises DistillError for an unknown name."""
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def arms(name: str, dataset: str) -> tuple[Arm, ...]:
    """The arms of an experiment on a data set; raises DistillError where it has none there."""
    known = get(name).arms
    if dataset not in known:
        raise unknown(f"dataset of the experiment {name}", dataset, known)
    return known[dataset]


def plan(
    name: str,
    dataset: str,
    variant: str | None = None,
    seeds: Sequence[int] = (0,),
    *,
    start: str | None = None,
    shared_views: bool = True,
    **overrides: Any,
) -> list[Recipe]:
    """The recipes of an experiment: all arms, and of each all values that are tried, with all seeds.

    Args:
        name: a key of `EXPERIMENTS`.
        dataset: one that it has arms for.
        variant: "smoke" for tiny runs on mock data; another preset for the arms that name none; None for their budget.
        seeds: of the first weights, and of order and views.
        start: what arms begin from that continue another run.
        shared_views: whether runs have the views of the first seed, so that they can be taught as one class; those that
            start from given weights have their own.
        **overrides: fields of `Recipe` for all arms; None keeps each arm's value.

    Returns:
        Recipes, in the order of the arms, each once.

    Raises:
        DistillError: for unknown names and settings that make no sense.
    """
    if not seeds:
        raise DistillError("there is nothing to run: name at least one seed.")
    found = []
    for arm in arms(name, dataset):
        for first in recipes_of(arm, dataset, variant, start=start, seed=seeds[0], **overrides):
            # students that start from the same weights would not differ if they saw the same views too
            shared = shared_views and len(seeds) > 1 and first.start is None
            view_seed = first.order_seed if shared else first.view_seed
            found += [dataclasses.replace(first, seed=seed, view_seed=view_seed) for seed in seeds]
    return list(dict.fromkeys(found))


def pretraining(dataset: str, variant: str | None = None) -> list[Recipe]:
    """The run whose student arms of `initialization` start from; none where their presets name a published file."""
    if dataset not in BUDGET:
        return []
    arm = next(arm for arm in arms("out_of_domain", dataset) if arm.settings.get("transfer_set") == "digits")
    return recipes_of(arm, dataset, variant)


def teacher(dataset: str, variant: str | None = None, **overrides: Any) -> Recipe:
    """The recipe that makes a teacher from labels.

    Args:
        dataset: what it shall know.
        variant: "smoke" for a tiny run on mock data; another preset than that of teachers; None for that.
        **overrides: fields of `Recipe`; None keeps the preset's.

    Raises:
        DistillError: for unknown names and settings that make no sense.
    """
    usual = TEACHER.get(dataset, "teacher")
    if variant != "smoke":
        return recipes.get(dataset, variant or usual, **overrides)
    given = {field: value for field, value in overrides.items() if value is not None}
    (kept,) = _settings(Arm("teacher", variant=usual), dataset, variant)
    return recipes.get(dataset, variant, **(kept | given))


def recipes_of(
    arm: Arm, dataset: str, variant: str | None = None, *, start: str | None = None, **overrides: Any
) -> list[Recipe]:
    """The recipes of an arm, for each value that is tried; arguments as in `plan`."""
    preset = "smoke" if variant == "smoke" else arm.variant or variant or BUDGET.get(dataset, "")
    given = {field: value for field, value in overrides.items() if value is not None}
    found = []
    for settings in _settings(arm, dataset, variant):
        if settings.get("start") == PRETRAINED:
            settings["start"] = start
        found.append(recipes.get(dataset, preset, **(settings | given)))
    return found


def _settings(arm: Arm, dataset: str, variant: str | None) -> list[dict[str, Any]]:
    """What an arm changes, for each value that is tried; of what keeps smoke runs small, nothing."""
    if variant == "smoke":
        row = presets.describe(dataset, arm.variant).settings if arm.variant else {}
        kept = {field: value for field, value in (row | arm.settings).items() if field not in presets.SMOKE}
        kept.pop("ensemble", None)  # of one mock teacher there is no mean
        if kept.get("start") != PRETRAINED:
            kept.pop("start", None)  # weights of a large network
        return [kept]
    tried = [[(field, value) for value in values] for field, values in arm.tries.items()]
    return [dict(arm.settings), *(arm.settings | dict(values) for values in itertools.product(*tried) if values)]

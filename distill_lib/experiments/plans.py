"""Experiments by name: their settings as recipes that can be run. What the records say of them is in `comparisons`."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from distill_lib import recipes
from distill_lib.errors import DistillError, unknown
from distill_lib.experiments.definitions import EXPERIMENTS, PRETRAINED, Experiment, Setting
from distill_lib.recipes import Recipe, presets

BUDGET = {"fashion": "compare"}
"""The preset whose values and length all settings share that do not name one, by data set."""
TEACHER = {"fashion_teacher": "full"}
"""The preset that makes a teacher, by data set; that of the paper's sets is `teacher`."""


def budget(dataset: str) -> Recipe:
    """The preset whose values and length settings share on a data set that has such a one."""
    return recipes.get(dataset, BUDGET[dataset])


def get(name: str) -> Experiment:
    """Looks up an experiment; raises DistillError for an unknown name."""
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def settings(name: str, dataset: str) -> tuple[Setting, ...]:
    """The settings of an experiment on a data set; raises DistillError where it has none there."""
    known = get(name).settings
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
    """The recipes of an experiment, each once: all settings, and of each all values that are tried, with all seeds.

    `variant` is "smoke" for tiny runs on mock data, another preset where none is named, or None for the budget; `start`
    is what students begin from that continue another run, and `PRETRAINED` leaves it to `running.run`. With
    `shared_views` runs have the views of the first seed, so that one sweep teaches them, but for those that start from
    given weights. `overrides` are fields of `Recipe` for all settings; None keeps each one's value.
    """
    planned = []
    for setting in settings(name, dataset):
        for first in recipes_of(setting, dataset, variant, start=start, seed=_known(seeds)[0], **overrides):
            # students that start from the same weights would not differ if they saw the same views too
            shared = shared_views and len(seeds) > 1 and first.start in (None, PRETRAINED)
            view_seed = first.order_seed if shared else first.view_seed
            planned += [dataclasses.replace(first, seed=seed, view_seed=view_seed) for seed in seeds]
    return list(dict.fromkeys(planned))


def of_set(dataset: str, variant: str, seeds: Sequence[int] = (0,)) -> list[Recipe]:
    """A preset of a data set, or all settings of an experiment, for each seed, with views of its own; DistillError."""
    if variant in EXPERIMENTS:
        return plan(variant, dataset, seeds=seeds, shared_views=False)
    return [recipes.get(dataset, variant, seed=seed) for seed in _known(seeds)]


def _known(seeds: Sequence[int]) -> Sequence[int]:
    if not seeds:
        raise DistillError("there is nothing to run: name at least one seed.")
    return seeds


def pretraining(dataset: str, variant: str | None = None) -> list[Recipe]:
    """The run whose student `initialization` starts from; none where its presets name a published file."""
    if dataset not in BUDGET:
        return []
    digits = (each for each in settings("out_of_domain", dataset) if each.changes.get("transfer_set") == "digits")
    return recipes_of(next(digits), dataset, variant)


def teacher(dataset: str, variant: str | None = None, **overrides: Any) -> Recipe:
    """The recipe that makes a teacher from labels; variant and overrides as of `plan`, but None is its own preset."""
    usual = TEACHER.get(dataset, "teacher")
    if variant != "smoke":
        return recipes.get(dataset, variant or usual, **overrides)
    (changes,) = _changes(Setting("teacher", variant=usual), dataset, variant)
    return recipes.get(dataset, variant, **(changes | _given(overrides)))


def recipes_of(
    setting: Setting, dataset: str, variant: str | None = None, *, start: str | None = None, **overrides: Any
) -> list[Recipe]:
    """The recipes of a setting, for each value that is tried; arguments as in `plan`."""
    preset = "smoke" if variant == "smoke" else setting.variant or variant or BUDGET.get(dataset, "")
    made = []
    for changes in _changes(setting, dataset, variant):
        started = {"start": start} if changes.get("start") == PRETRAINED else {}
        made.append(recipes.get(dataset, preset, **(changes | started | _given(overrides))))
    return made


def _given(overrides: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in overrides.items() if value is not None}


def _changes(setting: Setting, dataset: str, variant: str | None) -> list[dict[str, Any]]:
    """What a setting changes, for each value that is tried; of what keeps smoke runs small, nothing."""
    if variant == "smoke":
        row = presets.describe(dataset, setting.variant).settings if setting.variant else {}
        kept = {field: value for field, value in (row | setting.changes).items() if field not in presets.SMOKE}
        kept.pop("ensemble", None)  # of one mock teacher there is no mean
        if kept.get("start") != PRETRAINED:
            kept.pop("start", None)  # weights of a large network
        return [kept]
    tried = itertools.product(*([(field, value) for value in values] for field, values in setting.tries.items()))
    return [dict(setting.changes), *(setting.changes | dict(values) for values in tried if values)]

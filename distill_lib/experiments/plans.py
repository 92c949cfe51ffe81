"""The experiments of the paper (Beyer et al., CVPR 2022): tables of settings, which are recipes that can be run.

The tables are `data/experiments.toml`. What the records say of them is in `comparisons`.
"""

import dataclasses
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_lib import recipes
from distill_lib.errors import DistillError, unknown
from distill_lib.experiments.matching import PRETRAINED
from distill_lib.recipes import Recipe, presets

FILE = Path(__file__).parents[1] / "data" / "experiments.toml"

BUDGET = {"fashion": "compare"}
"""The preset whose values and length all settings share that do not name one, by data set."""
TEACHER = {"fashion_teacher": "full"}
"""The preset that makes a teacher, by data set; that of the paper's sets is `teacher`."""


@dataclass(frozen=True)
class Setting:
    """One side of a comparison."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)  #: fields of a recipe that differ from the preset
    variant: str | None = None  #: the preset; None takes the experiment's budget
    tries: Mapping[str, Sequence[Any]] = field(default_factory=dict)  #: further values; validation images choose
    beside: str | None = None  #: the setting that it changes one thing of; None stands for the experiment's first one


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is compared: a question, where the paper asks it, and what it found, in our words; empty where it is open.

    Of the `settings` by data set, the first is what the others are compared with that name no other. Pairs in `better`
    are of the embedded set: the first names more test images, if the claim holds; `further` ones are compared too.
    """

    title: str
    source: str
    claim: str = ""
    settings: dict[str, tuple[Setting, ...]]
    better: tuple[tuple[str, str], ...] = ()
    further: tuple[tuple[str, str], ...] = ()


def _setting(row: str | dict[str, Any]) -> Setting:
    """The name of a preset, or a table; what no attribute of a setting is called is a field of a recipe."""
    if isinstance(row, str):
        return Setting(row, variant=row)
    own = {name: row.pop(name) for name in ("name", "variant", "tries", "beside") if name in row}
    return Setting(**own, changes=row)


def _experiment(about: dict[str, Any]) -> Experiment:
    settings = {dataset: tuple(map(_setting, rows)) for dataset, rows in about.pop("settings").items()}
    pairs: dict[str, Any] = {key: tuple(map(tuple, about.pop(key, ()))) for key in ("better", "further")}
    return Experiment(settings=settings, **pairs, **about)


EXPERIMENTS = {name: _experiment(about) for name, about in tomllib.loads(FILE.read_text(encoding="utf-8")).items()}


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
    return {name: value for name, value in overrides.items() if value is not None}


def _changes(setting: Setting, dataset: str, variant: str | None) -> list[dict[str, Any]]:
    """What a setting changes, for each value that is tried; of what keeps smoke runs small, nothing."""
    if variant == "smoke":
        row = presets.describe(dataset, setting.variant).settings if setting.variant else {}
        kept = {name: value for name, value in (row | setting.changes).items() if name not in presets.SMOKE}
        kept.pop("ensemble", None)  # of one mock teacher there is no mean
        if kept.get("start") != PRETRAINED:
            kept.pop("start", None)  # weights of a large network
        return [kept]
    tried = itertools.product(*([(name, value) for value in values] for name, values in setting.tries.items()))
    return [dict(setting.changes), *(setting.changes | dict(values) for values in tried if values)]

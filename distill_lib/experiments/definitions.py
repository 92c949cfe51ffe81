"""The experiments of the paper (Beyer et al., CVPR 2022): tables of settings, which `data/experiments.toml` holds."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "data" / "experiments.toml"
PRETRAINED = "pretrained"
"""Stands for the start of a student that continues another run, which `experiments.plan` is told."""

METRICS = ("top1", "ece", "kl", "agreement")
"""What records of networks under stress hold for each condition."""
CLEAN, TEACHER = "clean", "teacher"
"""The family of images as they are, whose severity is 0, and what stands there in the place of a policy."""


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

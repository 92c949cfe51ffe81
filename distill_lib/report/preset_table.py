"""The presets as a table, with their costs: `distill presets [DATASET] [--device NAME]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill_lib import recipes, records
from distill_lib.bench import timing
from distill_lib.recipes import Recipe, paper, presets
from distill_lib.report import budget, cost, devices

if TYPE_CHECKING:
    import pandas as pd

OWN_COLUMN = {
    "dataset", "variant", "policy", "student", "teacher", "epochs", "batch_size", "resolution", "temperature",
    "learning_rate", "weight_decay", "crop_area", "ensemble_crops", "eval_side", "evaluations",
}  # fmt: skip
"""Fields that have a column, or are the same for all presets of a set; others are told where they are not usual."""


def in_epochs(epochs: float) -> str:
    """A length of schedule as tables print it."""
    return f"{epochs:,.4g}" if epochs < 1000 else f"{epochs:,.0f}"


def table(dataset: str, device: str = budget.DEVICE, runs: pd.DataFrame | None = None) -> list[dict[str, str]]:
    """All presets of a data set but the smoke test, one a row.

    Args:
        dataset: as in `recipes.get`.
        device: what hours are given for, as in `budget.budget`.
        runs: the table of `records.read`, for measured speeds.

    Returns:
        Rows of text. Operations are in 10^15; hours that were measured have a star; notes are numbers in `notes`.

    Raises:
        DistillError: if data set or device is unknown.
    """
    told = notes(dataset)
    return [_row(dataset, variant, device, runs, told) for variant in recipes.variants(dataset) if variant != "smoke"]


def notes(dataset: str) -> list[str]:
    """What the presets of a data set decide where the sources are silent or contradict each other, each once.

    The last of them concern all presets of a set, and none names them.
    """
    described = [presets.describe(dataset, name) for name in recipes.variants(dataset) if name != "smoke"]
    own = [paper.DTYPE_NOTE] if dataset in paper.COMMON else []
    own += [paper.SET_NOTES[dataset]] if dataset in paper.SET_NOTES else []
    return list(dict.fromkeys([*(note for preset in described for note in preset.notes), *own]))


def hours(spent: budget.Budget) -> str:
    """Device-hours as text, with a star where they were measured."""
    if spent.hours is None:
        return "unknown"
    shown = "<0.01" if spent.hours < 0.01 else f"{spent.hours:,.{0 if spent.hours >= 10 else 2}f}"
    return f"{shown}{'*' if spent.measured else ''}"


def basis(device: str) -> str:
    """One sentence about where the hours come from."""
    peaks = {one.name: one for one in devices.DEVICES}
    if device not in peaks:
        return f"Hours are of {device}, from the images a second of records with the same networks (*)."
    one = peaks[device]
    return (
        f"Hours are of one {device}. With a star they come from the images a second of records with the same networks, "
        f"else from operations at {cost.UTILISATION:.0%} of {one.bfloat16 / 1e12:,.0f} TFLOP/s in bfloat16 "
        f"and {one.float32 / 1e12:,.0f} in float32, whichever a preset has: {one.source}."
    )


def as_text(dataset: str | None = None, device: str = budget.DEVICE) -> str:
    """The tables of one data set, or of all that have presets, with their notes and where the hours come from.

    Raises:
        DistillError: as `table`.
    """
    runs, parts = records.read(), []
    for name in [dataset] if dataset else recipes.names():
        noted = "\n".join(f"{number}. {note}" for number, note in enumerate(notes(name), 1))
        parts += [name, timing.table(table(name, device, runs)), *([noted] if noted else [])]
    return "\n\n".join([*parts, basis(device)])


def _row(dataset: str, variant: str, device: str, runs: pd.DataFrame | None, told: Sequence[str]) -> dict[str, str]:
    recipe, about = recipes.get(dataset, variant), presets.describe(dataset, variant)
    spent = budget.budget(recipe, device, runs)
    return {
        "preset": variant,
        "epochs": in_epochs(recipe.epochs),
        "policy": recipe.policy,
        "T": f"{recipe.temperature:g}" if recipe.has_teacher else "",
        "lr": f"{recipe.learning_rate:g}",
        "wd": f"{recipe.weight_decay:g}",
        "px": str(recipe.resolution),
        "batch": str(recipe.batch_size),
        "student": recipe.student,
        "teacher": recipe.teacher if recipe.has_teacher else "",
        "other": ", ".join(unusual(recipe)),
        "steps": f"{spent.steps:,}",
        "teacher PFLOP": f"{spent.teacher / 1e15:,.3g}" if spent.teacher < 1e18 else f"{spent.teacher / 1e15:,.0f}",
        "student PFLOP": f"{spent.student / 1e15:,.3g}" if spent.student < 1e18 else f"{spent.student / 1e15:,.0f}",
        "hours": hours(spent),
        "source": about.source,
        "notes": ", ".join(str(told.index(note) + 1) for note in about.notes),
    }


def unusual(recipe: Recipe) -> list[str]:
    """Settings without a column of their own that are not at their default, as "name value"."""
    usual = {field.name: field.default for field in dataclasses.fields(Recipe) if field.name not in OWN_COLUMN}
    common = presets.tables(recipe.dataset)[0]
    usual |= {name: common[name] for name in ("warmup_steps", "dtype") if name in common}
    found = {name: getattr(recipe, name) for name, default in usual.items() if getattr(recipe, name) != default}
    return [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()]

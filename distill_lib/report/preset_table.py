"""The presets as a table, with their costs: `distill presets [DATASET] [--device NAME]`, and the pages of data sets."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import recipes, records
from distill_lib.bench import timing
from distill_lib.recipes import Recipe, paper, presets
from distill_lib.report import cost, devices, paper_numbers
from distill_lib.report.aggregate import in_epochs
from distill_lib.report.tables import html_table

if TYPE_CHECKING:
    from IPython.display import HTML

OWN_COLUMN = {
    "dataset", "variant", "policy", "student", "teacher", "epochs", "batch_size", "resolution", "temperature",
    "learning_rate", "weight_decay", "crop_area", "ensemble_crops", "eval_side", "evaluations",
}  # fmt: skip
"""Fields that have a column, or are the same for all presets of a set; others are told where they are not usual."""
_OFTEN_THE_SAME = ("px", "batch", "student", "teacher")
_ON_PAGES = (
    "preset", "paper", "here", "hours", "epochs", "steps", "policy", "T", "lr", "wd", *_OFTEN_THE_SAME, "other",
    "notes", "source",
)  # fmt: skip


def table(dataset: str, device: str = cost.DEVICE, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """All presets of a data set but the smoke test, one a row.

    Args:
        dataset: as in `recipes.get`.
        device: what hours are given for, as in `cost.of_recipe`.
        runs: the table of `records.read`, for measured speeds.

    Returns:
        Rows of text. Operations are in 10^15; hours that were measured have a star; notes are numbers in `notes`.

    Raises:
        DistillError: if data set or device is unknown.
    """
    listed = notes(dataset)
    rows = []
    for variant in _variants(dataset):
        recipe, about = recipes.get(dataset, variant), presets.describe(dataset, variant)
        spent = cost.of_recipe(recipe, device, runs)
        row = {"preset": variant, "epochs": in_epochs(recipe.epochs), "policy": recipe.policy}
        row |= {"T": f"{recipe.temperature:g}" if recipe.has_teacher else "", "lr": f"{recipe.learning_rate:g}"}
        row |= {"wd": f"{recipe.weight_decay:g}", "px": str(recipe.resolution), "batch": str(recipe.batch_size)}
        row |= {"student": recipe.student, "teacher": recipe.teacher if recipe.has_teacher else ""}
        row |= {"other": ", ".join(unusual(recipe)), "steps": f"{spent.steps:,}"}
        for role, operations in (("teacher", spent.teacher), ("student", spent.student)):
            row[f"{role} PFLOP"] = f"{operations / 1e15:,{'.3g' if operations < 1e18 else '.0f'}}"
        row |= {"hours": spent.hours_text, "source": about.source}
        rows.append(row | {"notes": ", ".join(str(listed.index(note) + 1) for note in about.notes)})
    return pd.DataFrame(rows)


def notes(dataset: str) -> list[str]:
    """What the presets of a data set decide where the sources are silent or contradict each other, each once.

    The last of them concern all presets of a set, and none names them.
    """
    own = [note for name in _variants(dataset) for note in presets.describe(dataset, name).notes]
    own += [paper.DTYPE_NOTE] if dataset in paper.COMMON else []
    own += [paper.SET_NOTES[dataset]] if dataset in paper.SET_NOTES else []
    return list(dict.fromkeys(own))


def basis(device: str) -> str:
    """One sentence about where the hours come from."""
    if device not in devices.DEVICES:
        return f"Hours are of {device}, from the images a second of records with the same networks (*)."
    own = devices.get(device)
    return (
        f"Hours are of one {device}. With a star they come from the images a second of records with the same networks, "
        f"else from operations at {cost.UTILISATION:.0%} of {own.bfloat16 / 1e12:,.0f} TFLOP/s in bfloat16 "
        f"and {own.float32 / 1e12:,.0f} in float32, whichever a preset has: {own.source}."
    )


def as_text(dataset: str | None = None, device: str = cost.DEVICE) -> str:
    """The tables of one data set, or of all that have presets, with their notes and where the hours come from.

    Raises:
        DistillError: as `table`.
    """
    runs, parts = records.read(), []
    for name in [dataset] if dataset else recipes.names():
        noted = "\n".join(f"{number}. {note}" for number, note in enumerate(notes(name), 1))
        parts += [name, timing.table(table(name, device, runs).to_dict("records")), *([noted] if noted else [])]
    return "\n\n".join([*parts, basis(device)])


def show(dataset: str, runs: pd.DataFrame, device: str = cost.DEVICE) -> HTML:
    """The presets as a table of a page: a row for each recipe, under all its names, with the paper's number and ours.

    Args:
        dataset: a data set with presets.
        runs: the table of `records.read`, for results and measured speeds.
        device: what hours are given for.
    """
    reported = paper_numbers.entries(runs, device, on=dataset, kind="train")
    ours = zip(reported["here"], reported["verdict"], strict=True)
    short = [f"{here.partition(' (n')[0]} {verdict}".strip() for here, verdict in ours]
    known = reported.assign(here=short).groupby("name")[["value", "here"]].agg(list)
    rows = table(dataset, device, runs)
    for title, column in (("paper", "value"), ("here", "here")):
        rows[title] = [known[column].get(name, []) for name in rows["preset"]]
    alike = [dataclasses.replace(recipes.get(dataset, name), variant="") for name in rows["preset"]]
    joined = {"preset": ", ".join, "paper": _each, "here": _each}
    rows = rows.groupby(alike, sort=False).agg({name: joined.get(name, "first") for name in rows})
    rows = rows[[name for name in _ON_PAGES if rows[name].any()]]
    same = {name: rows[name].iloc[0] for name in _OFTEN_THE_SAME if name in rows and rows[name].nunique() == 1}
    shared = f"All of them: {', '.join(f'{name} {value}' for name, value in same.items())}." if same else ""
    return html_table(shared, rows.drop(columns=list(same)), notes(dataset), basis(device), css="wide lines")


def unusual(recipe: Recipe) -> list[str]:
    """Settings without a column of their own that are not at their default, as "name value"."""
    usual = {field.name: field.default for field in dataclasses.fields(Recipe) if field.name not in OWN_COLUMN}
    common = presets.tables(recipe.dataset)[0]
    usual |= {name: common[name] for name in ("warmup_steps", "dtype") if name in common}
    settings = {name: getattr(recipe, name) for name, default in usual.items() if getattr(recipe, name) != default}
    return [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()]


def _variants(dataset: str) -> list[str]:
    return [name for name in recipes.variants(dataset) if name != "smoke"]


def _each(lists: Iterable[list[str]]) -> str:
    return ", ".join(dict.fromkeys(itertools.chain.from_iterable(lists)))

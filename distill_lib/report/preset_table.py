"""The presets as a table, with their costs: `distill presets [DATASET] [--device NAME]`, and pages of data sets."""

import dataclasses
from typing import TYPE_CHECKING, Any

import pandas as pd

from distill_lib import recipes, records, views
from distill_lib.bench import timing
from distill_lib.recipes import Recipe, presets
from distill_lib.report import aggregate, cost, paper_numbers
from distill_lib.report.tables import html_table

if TYPE_CHECKING:
    from IPython.display import HTML

_NOT_TOLD = ("dataset", "variant", "policy", "epochs", "evaluations")  # there are other words, or no result depends


def table(dataset: str, device: str = cost.DEVICE, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """All presets of a data set but the smoke test as text, equal ones in a row, with `recipe` and a list of `notes`.

    Operations are in PFLOP (10^15); arguments, hours and errors are those of `cost.of_recipe`.
    """
    alike: dict[Recipe, list[str]] = {}
    for variant in recipes.variants(dataset):
        if variant != "smoke":
            alike.setdefault(dataclasses.replace(recipes.get(dataset, variant), variant=""), []).append(variant)
    usual = {field.name: field.default for field in dataclasses.fields(Recipe)} | presets.tables(dataset)[0]
    rows = []
    for recipe, names in alike.items():
        silent = _NOT_TOLD if recipe.has_teacher else (*_NOT_TOLD, "teacher", "temperature", "ensemble")
        own = {name: getattr(recipe, name) for name in usual if name not in silent}
        words = f"{views.NAMES[recipe.policy]} for {aggregate.in_epochs(recipe.epochs)} epochs"
        changed = _listed({name: value for name, value in own.items() if value != usual[name]})
        spent, about = cost.of_recipe(recipe, device, runs), presets.describe(dataset, names[-1])
        row: dict[str, Any] = {"preset": ", ".join(names), "what it is": "; ".join(filter(None, [words, changed]))}
        row["steps"] = f"{spent.steps:,}"
        for role, operations in (("teacher", spent.teacher), ("student", spent.student)):
            row[f"{role} PFLOP"] = f"{operations / 1e15:,{'.3g' if operations < 1e18 else '.0f'}}"
        row |= {"hours": spent.hours_text, "source": about.source}
        rows.append(row | {"recipe": dataclasses.replace(recipe, variant=names[-1]), "notes": list(about.notes)})
    return pd.DataFrame(rows)


def shared(dataset: str) -> list[str]:
    """What presets of a data set have in common, and what is decided about all of them, in sentences."""
    common = {name: value for name, value in presets.tables(dataset)[0].items() if name not in _NOT_TOLD}
    return [f"Where a row says nothing else: {_listed(common)}.", *presets.notes_on(dataset)]


def _listed(settings: dict[str, Any]) -> str:
    values = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in settings.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def basis(device: str) -> str:
    """One sentence about where the hours come from."""
    if device not in cost.DEVICES:
        return f"Hours are of {device}, from the images a second of records with the same networks (*)."
    own = cost.peaks(device)
    return (
        f"Hours are of one {device}. With a star they come from the images a second of records with the same networks, "
        f"else from operations at {cost.UTILISATION:.0%} of {own.bfloat16 / 1e12:,.0f} TFLOP/s in bfloat16 "
        f"and {own.float32 / 1e12:,.0f} in float32, whichever a preset has: {own.source}."
    )


def as_text(dataset: str | None = None, device: str = cost.DEVICE) -> str:
    """The tables of one data set, or of all that have presets, with their notes and where the hours come from."""
    runs, parts = records.read(), list[str]()
    for name in [dataset] if dataset else recipes.names():
        rows = table(name, device, runs).drop(columns="recipe")
        notes = list(dict.fromkeys(note for several in rows["notes"] for note in several))
        rows["notes"] = [", ".join(str(notes.index(note) + 1) for note in several) for several in rows["notes"]]
        numbered = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1))
        parts += filter(None, [name, timing.table(rows.to_dict("records")), numbered, "\n".join(shared(name))])
    return "\n\n".join([*parts, basis(device)])


def show(dataset: str, runs: pd.DataFrame, device: str = cost.DEVICE) -> "HTML":
    """The presets as a table of a page: what each is, the paper's number beside ours, from `runs`, and hours."""
    reported = paper_numbers.numbers().query("kind == 'train' and on == @dataset").groupby("name")["value"].unique()
    rows = []
    for row in table(dataset, device, runs).to_dict("records"):
        source = "" if row["source"] == "this project" else f"{row['source']}."
        values, own = reported.get(row["recipe"].variant, ()), paper_numbers.repeats(runs, row["recipe"])
        here = " ".join(paper_numbers.measured(own, [*values, ""][0])).strip() if len(own) else paper_numbers.NOT_RUN
        names = [row["preset"], *filter(None, [source, *row["notes"]])]
        row |= {"preset": names, "paper": ", ".join(values), "here": here}
        rows.append({name: row[name] for name in ("preset", "what it is", "paper", "here", "hours")})
    shown = pd.DataFrame(rows)
    shown = shown.loc[:, shown.astype(bool).any()]
    return html_table(shown, " ".join([*shared(dataset), basis(device)]), css="wide presets")

"""The paper's numbers and our presets: what its tables say, what was measured here, what to type and what it costs.

From Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022 (arXiv 2106.05237v2),
Tables 1 to 5 and the sections that each row names.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from distill_lib import datasets, recipes, records, views
from distill_lib.experiments import matching
from distill_lib.recipes import Recipe, presets
from distill_lib.report import aggregate, benchmarks, cost
from distill_lib.report.tables import html_table

if TYPE_CHECKING:
    from IPython.display import HTML

FILE = Path(__file__).parents[1] / "data" / "paper_tables.csv"
AUTHORS = "Beyer et al. 2022"
NOT_RUN = "not run yet".replace(" ", aggregate.BLANK)
TOLERANCE = 1.0  # points that a mean may lie from the paper's number, which is of one run without a spread, and agree
AGREES, DISAGREES = "agrees", "disagrees"
_COMMANDS = {
    "train": "nox -s run -- {on} -p variant {name}",
    "judge": "distill evaluate {name} {on}",
    "check": "distill data check {on}",
    "none": "",
}
_NOT_TOLD = ("dataset", "variant", "policy", "epochs", "evaluations")  # there are other words, or no result depends
_CURVES = {"imagenet": ("fixed", "same", "mix")}  # series of presets that a figure shows; of the small sets `mix`


def numbers() -> pd.DataFrame:
    """All numbers, a row each, as text, with the `command` that repeats them here.

    `kind` is "train", a preset; "judge", a published network on test images; "check", a data set's card; or "none".
    """
    table = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    return table.assign(command=[_COMMANDS[row["kind"]].format_map(row) for row in table.to_dict("records")])


def curves(dataset: str = "imagenet") -> pd.DataFrame:
    """What the paper's figures of a data set show, from Tables 3 and 4: accuracy by length, and the teacher itself.

    Columns policy (or "teacher"), name, epochs (NaN for it), test_top1 (share) and source.
    """
    table = numbers()
    table = table[(table["on"] == dataset) & table["table"].str.startswith(("Table 3", "Table 4", "section 3.2"))]
    series = table["name"].str.replace(r"_\d+$", "", regex=True)
    taught = table["kind"].eq("train") & series.isin(_CURVES.get(dataset, ("mix",)))
    table = table[taught | table["kind"].eq("judge")]
    names = table["name"].where(table["kind"] == "train")
    policies = names.map(lambda name: recipes.get(dataset, name).policy, na_action="ignore").fillna("teacher")
    columns = {"policy": policies, "name": table["setting"], "epochs": pd.to_numeric(table["epochs"])}
    columns |= {"test_top1": table["value"].astype(float) / 100, "source": f"{AUTHORS} (" + table["source"] + ")"}
    return pd.DataFrame(columns).reset_index(drop=True)


def repeats(runs: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The records that repeat a row of the paper; it names no precision, so that networks in either do."""
    return matching.of_recipe(runs, recipe, dtype=lambda name: True)


def entries(runs: pd.DataFrame, device: str = cost.DEVICE, **columns: str) -> pd.DataFrame:
    """The rows of `numbers` with these columns, such as `on="pets"`, and `here` (ours), `verdict`, `hours`, `notes`."""
    table = numbers()
    table = table[(table[list(columns)] == pd.Series(columns, dtype=str)).all(axis=1)]
    added = [_about(row, runs, device) for row in table.to_dict("records")]
    return table.assign(**{name: [row[name] for row in added] for name in ("here", "verdict", "hours", "notes")})


def _about(row: dict[str, Any], runs: pd.DataFrame, device: str) -> dict[str, Any]:
    notes, on, name = [row["note"]] if row["note"] else [], row["on"], row["name"]
    about = {"here": "", "verdict": "" if row["kind"] == "none" else NOT_RUN, "hours": ""}
    if row["kind"] == "check":
        card = datasets.get(on)
        held = card.splits if row["setting"] == "splits" else card.counts
        about["here"] = "|".join(str(held[split]) for split in datasets.SPLITS)
        about["verdict"] = AGREES if about["here"] == row["value"] else DISAGREES
    elif row["kind"] == "judge":
        about["hours"] = cost.of_evaluation(name, on, device).hours_text
    elif row["kind"] == "train":
        recipe = recipes.get(on, name)
        notes += presets.describe(on, name).notes
        about["hours"] = cost.of_recipe(recipe, device, runs).hours_text
        if len(own := repeats(runs, recipe)):
            about["here"], about["verdict"] = measured(own, row["value"])
            notes.append(f"Runs: {', '.join(sorted(own['run_id']))}")
    return about | {"notes": [f"{note[0].upper()}{note[1:]}{'' if note.endswith('.') else '.'}" for note in notes]}


def measured(own: pd.DataFrame, value: str) -> tuple[str, str]:
    """Our mean in percent with spread and n, of rows of `repeats`; does the paper's agree? "" where its run failed."""
    percent = 100 * own["test_top1"]
    gap = abs(percent.mean() - pd.to_numeric(value.lstrip("~"), errors="coerce"))
    verdict = "" if pd.isna(gap) else AGREES if gap <= TOLERANCE else DISAGREES
    return f"{aggregate.mean_spread(percent, 2)} (n = {len(own)})", verdict


def reference(table: pd.DataFrame) -> "HTML":
    """Rows of `entries` as the table of a page: notes unfold at each name, and `filter.js` adds a search field."""
    names = []
    for row in table.to_dict("records"):
        title = f"{row['setting']}, {int(row['epochs']):,} epochs" if row["epochs"] else row["setting"]
        networks = [f"{role} {row[role]}" for role in ("student", "teacher") if row[role]]
        names.append([title, f"{'; '.join([row['table'], *networks])}. {row['source']}.", *row["notes"]])
    columns = {"set": table["on"].replace("", "imagenet"), "row": names, "paper": table["value"], "here": table["here"]}
    columns |= {"verdict": table["verdict"].replace(DISAGREES, f"**{DISAGREES}**"), "hours": table["hours"]}
    columns |= {"type": ("`" + table["command"] + "`").replace("``", "")}
    return html_table(pd.DataFrame(columns), css="wide filterable")


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
        parts += filter(None, [name, benchmarks.as_text(rows.to_dict("records")), numbered, "\n".join(shared(name))])
    return "\n\n".join([*parts, basis(device)])


def show(dataset: str, runs: pd.DataFrame, device: str = cost.DEVICE) -> "HTML":
    """The presets as a table of a page: what each is, the paper's number beside ours, from `runs`, and hours."""
    reported = numbers().query("kind == 'train' and on == @dataset").groupby("name")["value"].unique()
    rows = []
    for row in table(dataset, device, runs).to_dict("records"):
        source = "" if row["source"] == "this project" else f"{row['source']}."
        values, own = reported.get(row["recipe"].variant, ()), repeats(runs, row["recipe"])
        here = " ".join(measured(own, [*values, ""][0])).strip() if len(own) else NOT_RUN
        names = [row["preset"], *filter(None, [source, *row["notes"]])]
        row |= {"preset": names, "paper": ", ".join(values), "here": here}
        rows.append({name: row[name] for name in ("preset", "what it is", "paper", "here", "hours")})
    frame = pd.DataFrame(rows)
    frame = frame.loc[:, frame.astype(bool).any()]
    return html_table(frame, " ".join([*shared(dataset), basis(device)]), css="wide presets")

"""The paper's numbers beside ours: what its tables say, what was measured here, what to type and what it costs.

From Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022 (arXiv 2106.05237v2),
Tables 1 to 5 and the sections that each row names.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from distill_lib import datasets, recipes
from distill_lib.experiments import matching
from distill_lib.recipes import presets
from distill_lib.report import aggregate, cost
from distill_lib.report.tables import html_table

if TYPE_CHECKING:
    from IPython.display import HTML

    from distill_lib.recipes import Recipe

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


def repeats(runs: pd.DataFrame, recipe: "Recipe") -> pd.DataFrame:
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

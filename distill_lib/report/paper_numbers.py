"""The paper's numbers beside ours: what its tables say, what was measured here, what to type and what it costs.

References:
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022 (arXiv 2106.05237v2),
    Tables 1 to 5 and the sections that each row names.
"""

from __future__ import annotations

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

FILE = Path(__file__).parents[1] / "data" / "paper_tables.csv"
AUTHORS = "Beyer et al. 2022"
NOT_RUN = f"not{aggregate.BLANK}run"
TOLERANCE = 1.0
"""Points by which a mean may differ from the paper's number, which is of one run and has no spread, and still agree."""
AGREES, DISAGREES = "agrees", "disagrees"
_COMMANDS = {
    "train": "nox -s run -- distill -p dataset {on} -p variant {name}",
    "judge": "distill evaluate {name} {on}",
    "check": "distill data check {on}",
    "none": "",
}
_CURVES = {"fixed": "fix/cc", "same": "same/ic", "mix": "mix"}  # series of presets on ImageNet: policy


def numbers() -> pd.DataFrame:
    """All numbers, as text, and what repeats each of them here.

    Returns:
        A row a number, with the columns experiment, table, dataset, teacher, student, setting, epochs, resolution,
        temperature, learning_rate, weight_decay, metric, value, source, note, and of its repetition: `kind`, "train" (a
        preset), "judge" (a published network on test images), "check" (a data set's card) or "none"; `on`, the data
        set; `name`, of the preset or the network; and `command`, what to type. The last three are empty for "none".
    """
    table = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    return table.drop(columns="repeat").join(pd.DataFrame([_repetition(text) for text in table["repeat"]]))


def _repetition(text: str) -> dict[str, str]:
    """Reads "train DATASET PRESET", "judge NETWORK DATASET", "check DATASET" or "none"."""
    kind, *rest = text.split()
    on, name = [*(reversed(rest) if kind == "judge" else rest), "", ""][:2]
    return {"kind": kind, "on": on, "name": name, "command": _COMMANDS[kind].format(on=on, name=name)}


def imagenet() -> pd.DataFrame:
    """Table 3's fixed teacher, consistent teaching and function matching, and the teacher at 224.

    Returns:
        Columns policy ("teacher" for the teacher itself), name, epochs (NaN for it), test_top1 (share) and source.
    """
    table = numbers()
    table = table[(table["on"] == "imagenet") & table["table"].str.startswith(("Table 3", "section"))]
    policies = table["name"].str.rpartition("_")[0].map(_CURVES).where(table["kind"] == "train")
    table = table.assign(policy=policies.mask(table["name"] == "R152x2_T_224", "teacher")).dropna(subset="policy")
    return pd.DataFrame(
        {
            "policy": table["policy"],
            "name": table["setting"],
            "epochs": pd.to_numeric(table["epochs"]),
            "test_top1": table["value"].astype(float) / 100,
            "source": AUTHORS + " (" + table["source"] + ")",
        }
    ).reset_index(drop=True)


def entries(runs: pd.DataFrame, device: str = cost.DEVICE, **columns: str) -> pd.DataFrame:
    """The paper's numbers beside ours, in the order of its tables.

    Args:
        runs: the table of `records.read`.
        device: what hours are given for.
        **columns: values that columns of `numbers` must have, such as `on="pets"`. Costs are counted for no others.

    Returns:
        The rows of `numbers` with the further columns `here` (ours as mean ± standard deviation with the runs behind
        it, or `NOT_RUN`, or empty where there can be none), `verdict` (`AGREES`, `DISAGREES` or empty), `hours`
        (device-hours as text) and `notes` (a list of what is decided, inferred or contradictory about it).
    """
    table = numbers()
    for column, value in columns.items():
        table = table[table[column] == value]
    added = [_measured(row, runs) | _about(row, runs, device) for row in table.to_dict("records")]
    return table.assign(**{name: [row[name] for row in added] for name in ("here", "verdict", "hours", "notes")})


def counts(every: pd.DataFrame) -> dict[str, int]:
    """How many of `entries` there are: all, accuracies that can be measured and are, data, others; and what agrees."""
    runnable, data = every[every["kind"].isin(["train", "judge"])], every[every["kind"] == "check"]
    measured = runnable[runnable["here"] != NOT_RUN]
    return {
        "all": len(every),
        "runnable": len(runnable),
        "measured": len(measured),
        "agree": int((measured["verdict"] == AGREES).sum()),
        "disagree": int((measured["verdict"] == DISAGREES).sum()),
        "data": len(data),
        "data that agree": int((data["verdict"] == AGREES).sum()),
        "others": int((every["kind"] == "none").sum()),
    }


def show(table: pd.DataFrame) -> HTML:
    """Rows of `entries` as a table of a page, with their notes, each once, below it; empty columns are left out.

    Commands that differ in the preset alone stand above the table, and the presets in it.
    """
    if table.empty:
        return html_table("There are no such numbers.")
    notes = list(dict.fromkeys(note for several in table["notes"] for note in several))
    starts = {command.rpartition(" ")[0] for command in table.loc[table["kind"] == "train", "command"]}
    start = starts.pop() if len(starts) == 1 else ""
    commands = [f"`{text.removeprefix(f'{start} ') if start else text}`" if text else "" for text in table["command"]]
    verdicts = table["verdict"].replace(DISAGREES, f"**{DISAGREES}**")
    rows = {
        "setting": table["setting"],
        "epochs": [f"{int(text):,}" if text else "" for text in table["epochs"]],
        "paper": table["value"],
        "here": table["here"] + " " + verdicts,
        "hours": table["hours"],
        "PRESET" if start else "type": commands,
        "notes": [", ".join(str(notes.index(note) + 1) for note in several) for several in table["notes"]],
    }
    frame = pd.DataFrame(rows)
    note = f"To repeat a row: `{start} PRESET`" if start else ""
    return html_table(note, frame.loc[:, (frame != "").any()], notes, css="wide")


def _measured(row: dict[str, Any], runs: pd.DataFrame) -> dict[str, str]:
    """Our number with its runs, and the verdict."""
    if row["kind"] == "check":
        card = datasets.get(row["on"])
        held = card.splits if row["setting"] == "splits" else card.counts
        here = "|".join(str(held[split]) for split in datasets.SPLITS)
        return {"here": here, "verdict": AGREES if here == row["value"] else DISAGREES}
    if row["kind"] != "train":
        return {"here": NOT_RUN if row["kind"] == "judge" else "", "verdict": ""}
    # the paper names no precision, so that networks in either repeat its row
    own = matching.of_recipe(runs, recipes.get(row["on"], row["name"]), dtype=lambda name: True)
    if own.empty:
        return {"here": NOT_RUN, "verdict": ""}
    percent = 100 * own["test_top1"]
    here = f"{aggregate.mean_spread(percent, 2)} (n = {len(own)}: {', '.join(sorted(own['run_id']))})"
    return {"here": here, "verdict": _verdict(percent.mean(), row["value"])}


def _verdict(mean: float, value: str) -> str:
    try:
        reported = float(value.lstrip("~"))
    except ValueError:  # the paper's run failed
        return ""
    return AGREES if abs(mean - reported) <= TOLERANCE else DISAGREES


def _about(row: dict[str, Any], runs: pd.DataFrame, device: str) -> dict[str, Any]:
    """What repeating a number costs, and what there is to say about it."""
    notes, hours = [row["note"]] if row["note"] else [], ""
    if row["kind"] == "train":
        notes += presets.describe(row["on"], row["name"]).notes
        hours = cost.of_recipe(recipes.get(row["on"], row["name"]), device, runs).hours_text
    elif row["kind"] == "judge":
        hours = cost.of_evaluation(row["name"], row["on"], device).hours_text
    sentences = [f"{note[0].upper()}{note[1:]}{'' if note.endswith('.') else '.'}" for note in notes]
    return {"hours": hours, "notes": sentences}

"""What the page of one of the paper's data sets shows: experiments, presets and costs, the paper's numbers and ours."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import recipes, records, views
from distill_lib.report import aggregate, budget, effort, paper_numbers, paper_table, preset_table
from distill_lib.report.paper_table import Entry

if TYPE_CHECKING:
    from IPython.display import HTML


_OFTEN_THE_SAME = ("px", "batch", "student", "teacher")
_COLUMNS = (
    "preset", "paper", "here", "hours", "epochs", "steps", "policy", "T", "lr", "wd", *_OFTEN_THE_SAME, "other",
    "notes", "source",
)  # fmt: skip


def experiments(dataset: str, runs: pd.DataFrame, device: str = budget.DEVICE) -> HTML:
    """The notebooks that have arms on this set: what to type, how many students that trains, and what hours."""
    rows = effort.table(runs, device, dataset).drop(columns="data")
    rows["type"] = [f"<code>{html.escape(text)}</code>" for text in rows["type"]]
    return _html(rows.to_html(index=False, border=0, justify="left", escape=False))


def table(dataset: str, runs: pd.DataFrame, device: str = budget.DEVICE) -> HTML:
    """The presets with their costs, the paper's numbers and ours; their notes below.

    Args:
        dataset: a data set with presets.
        runs: the table of `records.read`, for results and measured speeds.
        device: what hours are given for.
    """
    rows = _merged(dataset, runs, device)
    rows = rows[[name for name in _COLUMNS if name in rows and rows[name].any()]]
    same = {name: rows[name].iloc[0] for name in _OFTEN_THE_SAME if name in rows and rows[name].nunique() == 1}
    told = f"<p>All of them: {', '.join(f'{name} {value}' for name, value in same.items())}.</p>" if same else ""
    text = rows.drop(columns=list(same)).to_html(index=False, border=0, justify="left")
    notes = "".join(f"<li>{paper_table.marked(note)}</li>" for note in preset_table.notes(dataset))
    basis = html.escape(preset_table.basis(device))
    return _html(f'{told}<div class="lines">{text}</div><ol>{notes}</ol><p>{basis}</p>')


def numbers(dataset: str, runs: pd.DataFrame) -> HTML:
    """The paper's numbers on this set that no preset repeats: of published networks, and of other systems."""
    return paper_table.show([entry for again, entry in _entries(dataset, runs) if again.kind != "train"])


def results(dataset: str, runs: pd.DataFrame) -> HTML:
    """Mean and spread over the seeds of each preset, policy and length, of the records that are comparable."""
    own = aggregate.comparable(runs[runs["dataset"] == dataset] if "dataset" in runs else runs.iloc[:0])
    if own.empty:
        return _html(f"<p>{records.NOTHING}</p>")
    rows = []
    for (variant, policy, epochs), group in own.groupby(["variant", "policy", "epochs"]):
        row = {
            "preset": variant,
            "policy": views.NAMES[policy],
            "epochs": preset_table.in_epochs(epochs),
            "n": len(group),
        }
        row |= {"test top-1 (%)": aggregate.mean_spread(100 * group["test_top1"], 2)}
        rows.append(row | {"runs": ", ".join(sorted(group["run_id"]))})
    return _html(pd.DataFrame(rows).to_html(index=False, border=0, justify="left"))


def _merged(dataset: str, runs: pd.DataFrame, device: str) -> pd.DataFrame:
    """A row for each recipe, under all names that it has, with the paper's number and ours."""
    names: dict[recipes.Recipe, list[str]] = {}
    for variant in recipes.variants(dataset):
        if variant != "smoke":
            nameless = dataclasses.replace(recipes.get(dataset, variant), variant="")
            names.setdefault(nameless, []).append(variant)
    costs = {row["preset"]: row for row in preset_table.table(dataset, device, runs)}
    found: dict[str, list[Entry]] = {}
    for again, entry in _entries(dataset, runs):
        found.setdefault(again.name, []).append(entry)
    rows = []
    for several in names.values():
        entries = [entry for name in several for entry in found.get(name, [])]
        own = {"preset": ", ".join(several), "paper": _each([entry.paper for entry in entries])}
        own["here"] = _each([f"{entry.here.partition(' (n')[0]} {entry.verdict}".strip() for entry in entries])
        rows.append(costs[several[0]] | own)
    return pd.DataFrame(rows)


def _entries(dataset: str, runs: pd.DataFrame) -> list[tuple[paper_numbers.Repeat, Entry]]:
    """The paper's numbers on a set, those about the data left out, with what repeats them."""
    repeats = [
        again for again in map(paper_numbers.repeat, paper_numbers.table()["repeat"]) if again.dataset == dataset
    ]
    every = zip(repeats, paper_table.entries(runs, dataset=dataset), strict=True)
    return [(again, entry) for again, entry in every if again.kind != "check"]


def _each(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _html(text: str) -> HTML:
    from IPython.display import HTML

    return HTML(f'<div class="wide">{text}</div>')

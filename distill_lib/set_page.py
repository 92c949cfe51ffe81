"""What the page of one of the paper's data sets shows: presets and their costs, the paper's numbers, own results."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import budget, claims, findings, paper, recipe_table, report, views

if TYPE_CHECKING:
    from IPython.display import HTML


_OFTEN_THE_SAME = ("px", "batch", "student", "teacher")
_COLUMNS = (
    "preset", "notes", "epochs", "steps", "hours", "policy", "T", "lr", "wd", *_OFTEN_THE_SAME, "other",
    "teacher PFLOP", "student PFLOP", "source",
)  # fmt: skip


def presets(dataset: str, runs: pd.DataFrame, device: str = budget.DEVICE) -> HTML:
    """The presets as `python -m distill_lib.recipes` prints them, with their notes below.

    Args:
        dataset: a data set with presets.
        runs: the table of `records.read`, for measured speeds.
        device: what hours are given for.
    """
    rows = pd.DataFrame(recipe_table.table(dataset, device, runs))[list(_COLUMNS)]
    same = {name: rows[name].iloc[0] for name in _OFTEN_THE_SAME if rows[name].nunique() == 1}
    told = f"<p>All of them: {', '.join(f'{name} {value}' for name, value in same.items())}.</p>" if same else ""
    table = rows.drop(columns=list(same)).to_html(index=False, border=0, justify="left")
    notes = "".join(f"<li>{report.marked(note)}</li>" for note in recipe_table.notes(dataset))
    return _html(f"{told}{table}<ol>{notes}</ol><p>{html.escape(recipe_table.basis(device))}</p>")


def numbers(dataset: str, runs: pd.DataFrame) -> HTML:
    """The paper's numbers on this set beside ours, what to type and what it costs; without those about the data."""
    repeats = [paper.repeat(text) for text in paper.table()["repeat"]]
    chosen = [again.dataset == dataset and again.kind != "check" for again in repeats]
    return report.show([entry for entry, own in zip(report.entries(runs), chosen, strict=True) if own])


def results(dataset: str, runs: pd.DataFrame) -> HTML:
    """Mean and spread over the seeds of each preset, policy and length, of the records that are comparable."""
    own = findings.comparable(runs[runs["dataset"] == dataset] if "dataset" in runs else runs.iloc[:0])
    if own.empty:
        return _html(f"<p>{claims.NO_RECORDS}</p>")
    rows = []
    for (variant, policy, epochs), group in own.groupby(["variant", "policy", "epochs"]):
        row = {"preset": variant, "policy": views.NAMES[policy], "epochs": f"{epochs:,.6g}", "n": len(group)}
        row |= {"test top-1 (%)": findings.mean_spread(100 * group["test_top1"], 2)}
        rows.append(row | {"runs": ", ".join(sorted(group["run_id"]))})
    return _html(pd.DataFrame(rows).to_html(index=False, border=0, justify="left"))


def _html(text: str) -> HTML:
    from IPython.display import HTML

    return HTML(f'<div class="wide">{text}</div>')

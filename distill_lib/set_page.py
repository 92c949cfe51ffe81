"""What the page of one of the paper's data sets shows: presets and their costs, the paper's numbers, own results."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import budget, claims, findings, paper, recipe_table, report, views

if TYPE_CHECKING:
    from IPython.display import HTML


def presets(dataset: str, runs: pd.DataFrame, device: str = budget.DEVICE) -> HTML:
    """The presets as `python -m distill_lib.recipes` prints them, with their notes below.

    Args:
        dataset: a data set with presets.
        runs: the table of `records.read`, for measured speeds.
        device: what hours are given for.
    """
    rows = pd.DataFrame(recipe_table.table(dataset, device, runs)).drop(columns=["px", "batch"])
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in recipe_table.notes(dataset))
    basis = html.escape(recipe_table.basis(device))
    return _html(f"{rows.to_html(index=False, border=0, justify='left')}<ol>{notes}</ol><p>{basis}</p>")


def numbers(dataset: str, runs: pd.DataFrame) -> HTML:
    """The paper's numbers on this set beside ours, what to type and what it costs."""
    entries = report.entries(runs)
    rows = paper.table()["repeat"].map(lambda text: paper.repeat(text).dataset == dataset)
    return report.show([entry for entry, own in zip(entries, rows, strict=True) if own])


def results(dataset: str, runs: pd.DataFrame) -> HTML:
    """All records on this set: mean and spread over the seeds of each preset, policy and length."""
    own = runs[runs["dataset"] == dataset] if "dataset" in runs else runs.iloc[:0]
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

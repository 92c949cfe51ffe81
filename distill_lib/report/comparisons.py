"""What the records say of an experiment: its settings with mean and spread, and what becomes of the paper's claim."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import experiments, records
from distill_lib.experiments import PRETRAINED, matching
from distill_lib.report import aggregate, differences
from distill_lib.report.differences import Difference
from distill_lib.report.tables import html_table

if TYPE_CHECKING:
    from IPython.display import HTML


def of_experiment(runs: pd.DataFrame, name: str, dataset: str = "fashion") -> pd.DataFrame:
    """The rows of `records.read` that are of an experiment on a data set, in the order of their `setting`, which comes.

    Of a setting with several values to try they are those that validation images choose, among so many `tried` ones.
    """
    parts = []
    for setting in experiments.settings(name, dataset):
        recipes = experiments.recipes_of(setting, dataset, start=PRETRAINED)
        candidates = [rows for rows in (matching.of_recipe(runs, recipe) for recipe in recipes) if len(rows)]
        best = max(candidates, key=lambda rows: rows["validation_top1"].mean(), default=runs.iloc[:0])
        parts.append(best.assign(setting=setting.name, tried=len(candidates)))
    return pd.concat(parts, ignore_index=True)


def table(runs: pd.DataFrame, name: str, dataset: str = "fashion") -> pd.DataFrame:
    """An experiment as a table to print, a row a setting; one without records says so."""
    frame, rows = of_experiment(runs, name, dataset), []
    groups = dict(iter(frame.groupby("setting")))
    for setting in experiments.settings(name, dataset):
        row = {"setting": setting.name, "test top-1 (%)": records.NOTHING}
        if (own := groups.get(setting.name)) is not None:
            row["test top-1 (%)"] = aggregate.mean_spread(100 * own["test_top1"])
            if "test_agreement" in own and own["test_agreement"].notna().any():
                row["agreement (%)"] = aggregate.mean_spread(100 * own["test_agreement"])
            row |= {"epochs": f"{own['epochs'].iloc[0]:,.0f}", "n": str(len(own))}
            if frame["tried"].max() > 1:
                row["values tried"] = str(own["tried"].iloc[0])
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def compared(runs: pd.DataFrame, name: str) -> list[Difference]:
    """What an experiment on the embedded set compares, where both settings have records; corrected for all of these."""
    return differences.holm(differences_of(runs, name))


def differences_of(runs: pd.DataFrame, name: str) -> list[Difference]:
    """As `compared`, but not corrected yet."""
    own = of_experiment(runs, name)
    sides = {pair: [own[own["setting"] == setting] for setting in pair] for pair in _pairs(name)}
    return [each for pair, (first, second) in sides.items() if (each := differences.compare(first, second, pair))]


def overview(runs: pd.DataFrame) -> pd.DataFrame:
    """All experiments that the paper has too: what it says, and each comparison that this is about, as text."""
    table = pd.DataFrame(
        {"experiment": experiment.title, "the paper": experiment.claim} | row
        for name, experiment in experiments.EXPERIMENTS.items()
        if experiment.better
        for row in verdicts(compared(runs, name), name).head(len(experiment.better)).to_dict("records")
    )
    again = table["experiment"].duplicated()  # a question and its claim stand once
    return table.assign(**{title: table[title].mask(again, "") for title in ("experiment", "the paper")})


def verdicts(own: Iterable[Difference], name: str) -> pd.DataFrame:
    """A row for each comparison of an experiment: whether it bears out the paper, or else is "better" or "worse"."""
    better, known = experiments.get(name).better, {(each.first, each.second): each for each in own}
    rows = []
    for pair in _pairs(name):
        each = known.get(pair)
        verdict = differences.verdict([each] if each else [], 1)
        if pair not in better:
            verdict = {"agrees": "better", "disagrees": "worse"}.get(verdict, verdict)
        rows.append({"here": " minus ".join(pair)} | differences.columns(each) | {"verdict": verdict})
    return pd.DataFrame(rows)


def show(runs: pd.DataFrame, name: str, dataset: str = "fashion") -> "HTML":
    """An experiment as a page prints it: the claim, its settings, and on the embedded set what becomes of the claim."""
    claim = experiments.get(name).claim
    said = f"*The paper says:* {claim}" if claim else ""
    if dataset != "fashion":
        return html_table(said, table(runs, name, dataset))
    own = compared(runs, name)
    note = (
        f"*p* is corrected for the {differences.tested(own)} tests of this table; intervals are not. Few pairs of runs "
        "can leave even a large difference undecided: the interval says how large it is."
    )
    return html_table(said, table(runs, name), verdicts(own, name), note)


def _pairs(name: str) -> list[tuple[str, str]]:
    """What is compared: the pairs of the claim and the further ones; without any, each setting with that beside it."""
    experiment = experiments.get(name)
    first, *others = experiments.settings(name, "fashion")
    return [*experiment.better, *experiment.further] or [(each.name, each.beside or first.name) for each in others]

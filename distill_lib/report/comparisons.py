"""What the records say of an experiment: its arms with mean and spread, and what becomes of the paper's claim."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import experiments, records
from distill_lib.experiments import PRETRAINED, Arm
from distill_lib.report import aggregate, differences, matching
from distill_lib.report.differences import Difference

if TYPE_CHECKING:
    from IPython.display import HTML

    from distill_lib.recipes import Recipe

Compared = Mapping[str, list[Difference]]  # by experiment, corrected for all of them


def of_experiment(runs: pd.DataFrame, name: str, dataset: str = "fashion") -> pd.DataFrame:
    """The records of an experiment.

    Args:
        runs: the table of `records.read`.
        name: a key of `experiments.EXPERIMENTS`.
        dataset: one that it has arms for.

    Returns:
        Their rows in the order of the arms, with the columns `arm` and `tried`: of an arm with several settings those
        that validation images choose, and how many there were to choose from.
    """
    parts = [_of_arm(runs, arm, dataset) for arm in experiments.arms(name, dataset)]
    return pd.concat(parts, ignore_index=True)


def table(runs: pd.DataFrame, name: str, dataset: str = "fashion") -> pd.DataFrame:
    """An experiment as a table to print, a row an arm; one without records says so."""
    found = of_experiment(runs, name, dataset)
    rows = []
    for arm in experiments.arms(name, dataset):
        own = found[found["arm"] == arm.name]
        if own.empty:
            rows.append({"arm": arm.name, "test top-1 (%)": records.NOTHING})
            continue
        columns = {"test top-1 (%)": "test_top1", "agreement (%)": "test_agreement"}
        shares = {title: 100 * own[column].dropna() for title, column in columns.items() if column in own}
        one = own.iloc[0]
        rows.append(
            {"arm": arm.name}
            | {title: aggregate.mean_spread(values) for title, values in shares.items() if len(values)}
            | {"epochs": f"{one['epochs']:,.0f}", "n": str(len(own)), "settings tried": str(one["tried"])}
        )
    if all(row.get("settings tried", "1") == "1" for row in rows):
        rows = [{title: text for title, text in row.items() if title != "settings tried"} for row in rows]
    return pd.DataFrame(rows).fillna("")


def compared(runs: pd.DataFrame) -> Compared:
    """What all experiments on the embedded set compare, by experiment, corrected for the number of all of them."""
    every = {name: differences_of(runs, name) for name in experiments.EXPERIMENTS}
    corrected = iter(differences.holm(each for own in every.values() for each in own))
    return {name: [next(corrected) for _ in own] for name, own in every.items()}


def differences_of(runs: pd.DataFrame, name: str) -> list[Difference]:
    """What an experiment on the embedded set compares, where both arms have records; not corrected."""
    found = of_experiment(runs, name)
    arms = {pair: tuple(found[found["arm"] == arm] for arm in pair) for pair in _pairs(name)}
    every = [differences.compare(first, second, pair) for pair, (first, second) in arms.items()]
    return [difference for difference in every if difference is not None]


def overview(every: Compared) -> pd.DataFrame:
    """All experiments that the paper has too: what it says, and each comparison that this is about, as text."""
    table = pd.DataFrame(
        {"experiment": experiment.title, "the paper": experiment.claim} | row
        for name, experiment in experiments.EXPERIMENTS.items()
        for row in verdicts(every, name).head(len(experiment.better)).to_dict("records")
    )
    again = table["experiment"].duplicated()  # a question and its claim stand once
    return table.assign(**{title: table[title].mask(again, "") for title in ("experiment", "the paper")})


def verdicts(every: Compared, name: str) -> pd.DataFrame:
    """A row for each comparison of an experiment: the difference, and whether it bears out what the paper says.

    Of those that the paper says nothing about, the verdict is "better", "worse" or "undecided".
    """
    better, known = experiments.get(name).better, {(each.first, each.second): each for each in every[name]}
    rows = []
    for pair in _pairs(name):
        each = known.get(pair)
        verdict = differences.verdict([each], 1) if each else records.NOTHING
        if pair not in better:
            verdict = {"agrees": "better", "disagrees": "worse"}.get(verdict, verdict)
        rows.append({"here": " minus ".join(pair)} | differences.columns(each) | {"verdict": verdict})
    return pd.DataFrame(rows)


def show(runs: pd.DataFrame, name: str, every: Compared) -> HTML:
    """An experiment as a page prints it: the claim, its arms, and what becomes of the claim."""
    from IPython.display import HTML

    claim = experiments.get(name).claim
    said = f"<p><em>The paper says:</em> {html.escape(claim)}</p>" if claim else ""
    tables = (table(runs, name), verdicts(every, name))
    return HTML(said + "".join(each.to_html(index=False, border=0, justify="left") for each in tables))


def of_settings(runs: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The records that repeat a recipe of an arm; a start that is yet to be put in is any start."""
    others = {"start": lambda start: start is not None} if recipe.start == PRETRAINED else {}
    return matching.of_recipe(runs, recipe, **others)


def _of_arm(runs: pd.DataFrame, arm: Arm, dataset: str) -> pd.DataFrame:
    candidates = [of_settings(runs, recipe) for recipe in experiments.recipes_of(arm, dataset, start=PRETRAINED)]
    found = [candidate for candidate in candidates if len(candidate)]
    if not found:
        return runs.iloc[:0].assign(arm=arm.name, tried=0)
    best = max(found, key=lambda rows: rows["validation_top1"].mean())
    return best.assign(arm=arm.name, tried=len(found))


def _pairs(name: str) -> list[tuple[str, str]]:
    """What is compared: the pairs of the claim and the further ones; without any, each arm with the one beside it."""
    experiment = experiments.get(name)
    first, *others = experiments.arms(name, "fashion")
    return [*experiment.better, *experiment.further] or [(arm.name, arm.beside or first.name) for arm in others]

"""What the records say of an experiment: its arms with mean and spread, and what becomes of the paper's claim."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import experiments
from distill_lib.experiments import PRETRAINED, Arm
from distill_lib.report import aggregate, claims, matching
from distill_lib.report.aggregate import Difference

if TYPE_CHECKING:
    from IPython.display import HTML

    from distill_lib.recipes import Recipe

JUDGED = {1: "agrees", 0: "undecided", -1: "disagrees"}


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
            rows.append({"arm": arm.name, "test top-1 (%)": claims.NO_RECORDS})
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


def verdicts(runs: pd.DataFrame, name: str) -> list[str]:
    """A sentence for each comparison that the claim is about: the difference, its noise, and whether it agrees."""
    found = of_experiment(runs, name)
    pairs = [(first, second, *_judged(found, first, second)) for first, second in experiments.get(name).better]
    return [
        f"{first} minus {second}: {points}; {said}." if points else f"{first} against {second}: {said}."
        for first, second, points, said in pairs
    ]


def overview(runs: pd.DataFrame) -> pd.DataFrame:
    """All experiments on the embedded set: what the paper says, and each comparison that this is about, as text."""
    rows = []
    for name, experiment in experiments.EXPERIMENTS.items():
        found = of_experiment(runs, name)
        for first, second in experiment.better:
            points, said = _judged(found, first, second)
            row = {"experiment": experiment.title, "the paper": experiment.claim, "here": f"{first} minus {second}"}
            rows.append(row | {"difference": points, "verdict": said})
    table = pd.DataFrame(rows)
    again = table["experiment"].duplicated()  # a question and its claim stand once
    return table.assign(**{title: table[title].mask(again, "") for title in ("experiment", "the paper")})


def compared(runs: pd.DataFrame, name: str, first: str, second: str) -> str:
    """One arm minus another, with its noise, in words."""
    points, said = _judged(of_experiment(runs, name), first, second)
    return f"{first} minus {second}: {points or said}"


def what_matters(runs: pd.DataFrame, name: str) -> str:
    """Which arms of an experiment differ on the embedded set from the one beside them by more than noise, in words."""
    found = of_experiment(runs, name)
    first, *others = experiments.arms(name, "fashion")
    known = set(found["arm"])
    pairs = [(arm.name, arm.beside or first.name) for arm in others]
    differences = [_difference(found, *pair) for pair in pairs if set(pair) <= known]
    if not differences:
        return aggregate.NONE
    unknown = [one for one in differences if math.isnan(one.error)]
    names = {arm: arm if other == first.name else f"{arm}, beside {other}" for arm, other in pairs}
    parts = {
        "Better": [f"{names[one.first]} ({claims.points(one)})" for one in differences if one.sign > 0],
        "Worse": [f"{names[one.first]} ({claims.points(one)})" for one in differences if one.sign < 0],
        "Within noise": [names[one.first] for one in differences if not one.sign and one not in unknown],
    }
    if unknown:
        told = [f"{names[one.first]} ({claims.points_of(one.value)})" for one in unknown]
        parts["Noise unknown, from single runs"] = told
    said = " ".join(f"{title}: {claims.listed(arms) or 'none'}." for title, arms in parts.items())
    return f"Beside {first.name}, where nothing else is said. {said}"


def show(runs: pd.DataFrame, name: str) -> HTML:
    """An experiment as a page prints it: the claim, the table, and what becomes of the claim."""
    from IPython.display import HTML

    claim = experiments.get(name).claim
    text = table(runs, name).to_html(index=False, border=0, justify="left")
    said = f"<p><em>The paper says:</em> {html.escape(claim)}</p>" if claim else ""
    return HTML(f"{said}{text}{_listed(verdicts(runs, name))}")


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


def _difference(found: pd.DataFrame, first: str, second: str) -> Difference:
    """One arm minus another; the spread between seeds is pooled over the arms of a length, as in the study."""
    both = [found[found["arm"] == arm] for arm in (first, second)]
    errors = [aggregate.mean_error(found, len(rows), rows["epochs"].iloc[0], by="arm") for rows in both]
    means, epochs = [rows["test_top1"].mean() for rows in both], float(both[0]["epochs"].iloc[0])
    value = float(means[0] - means[1])
    return Difference(first, second, epochs, value, math.hypot(*errors), min(map(len, both)))


def _judged(found: pd.DataFrame, first: str, second: str) -> tuple[str, str]:
    """The difference of two arms with its noise, and whether it agrees; no difference where one has no records."""
    if not {first, second} <= set(found["arm"]):
        return "", claims.NO_RECORDS
    difference = _difference(found, first, second)
    return claims.points(difference), JUDGED[difference.sign]


def _listed(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""

"""What the records say of an experiment: its arms with mean and spread, and what becomes of the paper's claim."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import claims, experiments, findings, matching
from distill_lib.arms import PRETRAINED, Arm
from distill_lib.findings import Difference

if TYPE_CHECKING:
    from IPython.display import HTML

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
            | {title: findings.mean_spread(values) for title, values in shares.items() if len(values)}
            | {"epochs": f"{one['epochs']:,.0f}", "n": str(len(own)), "settings tried": str(one["tried"])}
        )
    return pd.DataFrame(rows).fillna("")


def verdicts(runs: pd.DataFrame, name: str) -> list[str]:
    """A sentence for each comparison that the claim is about: the difference, its noise, and whether it agrees."""
    found = of_experiment(runs, name)
    return [_verdict(found, first, second) for first, second in experiments.get(name).better]


def what_matters(runs: pd.DataFrame, name: str) -> str:
    """Which arms of an experiment differ from its first one on the embedded set by more than noise, in a sentence."""
    found = of_experiment(runs, name)
    first, *others = [arm.name for arm in experiments.arms(name, "fashion")]
    known = set(found["arm"])
    differences = [_difference(found, other, first) for other in others if {other, first} <= known]
    if not differences:
        return findings.NONE
    parts = {
        "Better": [f"{one.first} ({claims.points(one)})" for one in differences if one.sign > 0],
        "worse": [f"{one.first} ({claims.points(one)})" for one in differences if one.sign < 0],
        "within noise": [one.first for one in differences if not one.sign],
    }
    said = "; ".join(f"{title}: {', '.join(arms) or 'none'}" for title, arms in parts.items())
    return f"Beside {first}. {said}."


def show(runs: pd.DataFrame, name: str) -> HTML:
    """An experiment as a page prints it: the claim, the table, and what becomes of the claim."""
    from IPython.display import HTML

    claim = experiments.get(name).claim
    text = table(runs, name).to_html(index=False, border=0, justify="left")
    return HTML(f"<p>{html.escape(claim)}</p>{text}{_listed(verdicts(runs, name))}")


def _of_arm(runs: pd.DataFrame, arm: Arm, dataset: str) -> pd.DataFrame:
    candidates = [
        matching.of_recipe(runs, recipe, **({"start": _given} if recipe.start == PRETRAINED else {}))
        for recipe in experiments.recipes_of(arm, dataset, start=PRETRAINED)
    ]
    found = [candidate for candidate in candidates if len(candidate)]
    if not found:
        return runs.iloc[:0].assign(arm=arm.name, tried=0)
    best = max(found, key=lambda rows: rows["validation_top1"].mean())
    return best.assign(arm=arm.name, tried=len(found))


def _given(start: str | None) -> bool:
    return start is not None


def _difference(found: pd.DataFrame, first: str, second: str) -> Difference:
    one, other = (found.loc[found["arm"] == arm, "test_top1"] for arm in (first, second))
    epochs = float(found.loc[found["arm"] == first, "epochs"].iloc[0])
    variance = sum(values.var() / len(values) for values in (one, other))  # nan where an arm has one run
    return Difference(first, second, epochs, float(one.mean() - other.mean()), variance**0.5, min(len(one), len(other)))


def _verdict(found: pd.DataFrame, first: str, second: str) -> str:
    if not {first, second} <= set(found["arm"]):
        return f"{first} against {second}: {claims.NO_RECORDS}."
    difference = _difference(found, first, second)
    return f"{first} minus {second}: {claims.points(difference)}; {JUDGED[difference.sign]}."


def _listed(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""

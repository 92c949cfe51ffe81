"""What the records say about each experiment of the paper on the embedded set (`analogues`).

Learning rate, weight decay and temperature may be an arm's own: where several were tried, those with the best mean
validation accuracy count, and test accuracy has no say. Runs of different policies and lengths are never averaged.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from distill_lib import claims, findings, matching, notebooks, recipes, views
from distill_lib.analogues import MAIN_POLICIES, Analogue, Arm
from distill_lib.errors import DistillError
from distill_lib.matching import value_of

if TYPE_CHECKING:
    from IPython.display import HTML

BASE = ("fashion", "medium")
TUNED = ("learning_rate", "weight_decay", "temperature")
"""Fields that are chosen for each arm on validation images."""


@dataclass(frozen=True)
class Result:
    """What an arm's runs of one policy and length say.

    Attributes:
        arm: its name.
        policy: key.
        epochs: length of the schedule.
        runs: rows of `records.read`, with the settings that validation chose.
        tried: how many settings there were to choose from.
    """

    arm: str
    policy: str
    epochs: float
    runs: pd.DataFrame
    tried: int


def results(analogue: Analogue, runs: pd.DataFrame) -> list[Result]:
    """What the records say about an experiment, an arm, policy and length each.

    Args:
        analogue: a row of `ANALOGUES`.
        runs: the table of `records.read`.
    """
    return [result for arm in analogue.arms for result in _of_arm(arm, runs)]


def table(analogue: Analogue, runs: pd.DataFrame) -> pd.DataFrame:
    """The results as text; an arm without records says so."""
    found = results(analogue, runs)
    rows = []
    for arm in analogue.arms:
        own = [result for result in found if result.arm == arm.name]
        rows += [_row(result) for result in own] or [{"arm": arm.name, "test top-1 (%)": claims.NO_RECORDS}]
    return pd.DataFrame(rows).fillna("")


def verdicts(analogue: Analogue, runs: pd.DataFrame) -> list[str]:
    """A sentence for each comparison of the claim: the difference, its noise, and whether it agrees."""
    found, arms = results(analogue, runs), {arm.name: arm for arm in analogue.arms}
    sentences = []
    for names in analogue.better:
        several = any("policy" in arms[name].settings for name in names)
        first, second = ([result for result in found if result.arm == name] for name in names)
        pairs = [
            (one, other)
            for one, other in itertools.product(first, second)
            if one.epochs == other.epochs and (several or one.policy == other.policy)
        ]
        sentences.append(_verdict(*names, pairs))
    return sentences


def show(analogue: Analogue, runs: pd.DataFrame) -> HTML:
    """An experiment as a page prints it: the claim, the table, and what becomes of the claim."""
    from IPython.display import HTML

    text = table(analogue, runs).to_html(index=False, border=0, justify="left")
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in verdicts(analogue, runs))
    return HTML(f"<p>{html.escape(analogue.claim)} {_command(analogue)}</p>{text}<ul>{said}</ul>")


def _command(analogue: Analogue) -> str:
    try:
        notebooks.find(analogue.notebook)
    except DistillError:
        return "Its notebook is not written yet."
    return f"To type: <code>nox -s run -- {analogue.notebook}</code>"


def _of_arm(arm: Arm, runs: pd.DataFrame) -> Iterator[Result]:
    base = dataclasses.asdict(recipes.get(*BASE))
    free = {"epochs", *TUNED, *matching.CHANCE}
    wanted = {name: value for name, value in base.items() if name not in free}
    wanted["policy"] = lambda key: key in MAIN_POLICIES
    if arm.settings.get("policy") in views.BASELINES:
        wanted.pop("teacher")
    found = matching.matching(runs, wanted | arm.settings)
    if found.empty:
        return
    for (epochs, policy), group in found.groupby(["epochs", "policy"]):
        names = _varied(arm, str(policy))
        settings = [str([value_of(run, name) for name in names]) for run in group.to_dict("records")]
        described = pd.Series(settings, group.index)
        best = group.groupby(described)["validation_top1"].mean().idxmax()
        yield Result(arm.name, policy, epochs, group[described == best], described.nunique())


def _varied(arm: Arm, policy: str) -> list[str]:
    """Fields that may differ between runs of an arm, and decide their results."""
    tuned = [name for name in TUNED if name != "temperature" or policy not in views.BASELINES]
    return [*tuned, *(name for name, value in arm.settings.items() if callable(value))]


def _row(result: Result) -> dict[str, Any]:
    runs = result.runs
    row = {"arm": result.arm, "policy": views.NAMES[result.policy], "epochs": f"{result.epochs:,.0f}"}
    row |= {"test top-1 (%)": findings.mean_spread(100 * runs["test_top1"]), "n": str(len(runs))}
    return row | {"settings tried": str(result.tried)}


def _verdict(first: str, second: str, pairs: list[tuple[Result, Result]]) -> str:
    """The difference at the longest schedule, of the first main policy where there are several."""
    if not pairs:
        return f"{first} against {second}: {claims.NO_RECORDS}."
    one, other = max(pairs, key=lambda pair: (pair[0].epochs, pair[0].policy == MAIN_POLICIES[0]))
    a, b = one.runs["test_top1"], other.runs["test_top1"]
    value, fewest = float(a.mean() - b.mean()), min(len(a), len(b))
    found = findings.Difference(first, second, one.epochs, value, _error(a, b), fewest)
    said = {1: "agrees", 0: "undecided", -1: "disagrees"}[found.sign]
    noise = "" if fewest > 1 else " (one seed)"
    return f"{first} minus {second}, at {claims.length(one.epochs)}: {claims.points(found)}{noise}; {said}."


def _error(a: pd.Series, b: pd.Series) -> float:
    """Standard error of the difference of two means, from the spread pooled over both; NaN without several seeds."""
    freedom = len(a) + len(b) - 2
    if freedom < 1:
        return math.nan
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in (a, b))
    return math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))

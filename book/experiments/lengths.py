"""What the length of a schedule decides: the order of policies, and what a number of seconds buys."""

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from distill_lib.report import aggregate, benchmarks, differences
from distill_lib.report.differences import Difference

LIVE, STORED = "a live teacher", "stored soft labels"


def rankings(study: pd.DataFrame) -> list[list[Difference]]:
    """How far the policy that is ahead at the longest schedule is so at each, for each pair; corrected for all."""
    policies, several = [policy for policy in aggregate.ORDER if policy in set(study["policy"])], []
    for pair in itertools.combinations(policies, 2):
        cases = differences.at_every_length(study, *pair)
        if len(cases) > 1:
            ahead = cases[-1].value >= 0
            several.append(cases if ahead else differences.at_every_length(study, *reversed(pair)))
    return list(differences.holm_of_groups(dict(enumerate(several))).values())


def ranking_table(ranked: Sequence[Sequence[Difference]]) -> pd.DataFrame:
    """Rankings as text: points that a policy is ahead at each length, with n, and from which on it always is."""
    lengths, rows = sorted({case.epochs for cases in ranked for case in cases}), []
    for cases in ranked:
        row = {"ahead at the end": f"`{cases[-1].first}`", "behind": f"`{cases[-1].second}`"}
        row |= dict.fromkeys(map(aggregate.length, lengths), "")
        for case in cases:
            seen = f",{aggregate.BLANK}seen" if case.sign else ""
            text = f"{differences.signed(100 * case.value)}{aggregate.BLANK}({min(case.runs)}){seen}"
            row[aggregate.length(case.epochs)] = text
        same = [case.epochs for case in itertools.takewhile(lambda case: case.value > 0, reversed(cases))]
        rows.append(row | {"in this order from": aggregate.length(min(same, default=cases[-1].epochs))})
    return pd.DataFrame(rows)


def cut(curves: pd.DataFrame, short: float = 100) -> pd.DataFrame:
    """Mean validation accuracy (share) at the end of short runs, of long ones cut there, and at their end, by policy.

    From `records.curves`; the long schedule is the longest of those with the most policies.
    """
    counts = curves[curves["epochs"] > short].groupby("epochs")["policy"].nunique() if len(curves) else curves
    if counts.empty:
        return pd.DataFrame()
    long, rows = float(counts[counts == counts.max()].index.max()), {}
    for policy in aggregate.ORDER:
        own = curves[curves["policy"] == policy]
        rows[policy] = [aggregate.at(own, short, short), aggregate.at(own, long, short), aggregate.at(own, long, long)]
    names = [aggregate.length(short), f"{long:,.0f} epochs, cut at {short:,.0f}", aggregate.length(long)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names, dtype=float).dropna()


def seconds_a_step() -> dict[str, float]:
    """Seconds that a step costs a student with a live teacher, a shared one and stored soft labels; or nothing."""
    measured = [row for row in benchmarks.rows("sweep") if isinstance(row["step"], benchmarks.Timing)]
    live = [row["step"].median for row in measured if row["students"] == 1]
    shared = [(row["step"].median, row["students"]) for row in measured if row["students"] > 1]
    stored = [row["speed-up"] for row in benchmarks.rows("soft_labels") if row.get("speed-up")]
    if not (live and shared and stored):
        return {}
    several, count = min(shared)
    return {LIVE: live[0], f"{count} students at once": several / count, STORED: live[0] / min(stored)}


def in_seconds(runs: pd.DataFrame, seconds: Mapping[str, float], policy: str) -> pd.DataFrame:
    """What each length costs a student by way of teaching (`seconds_a_step`), and `mean` test accuracy at its end."""
    own = runs[runs["policy"] == policy]
    if own.empty or not seconds:
        return pd.DataFrame(columns=["way", "seconds"])
    steps, means = own.groupby("epochs")["steps"].first(), aggregate.summary(own, by=("epochs",))
    parts = [means.assign(way=way, seconds=each * means["epochs"].map(steps)) for way, each in seconds.items()]
    return pd.concat(parts, ignore_index=True)[["way", "epochs", "seconds", "mean", "n"]]

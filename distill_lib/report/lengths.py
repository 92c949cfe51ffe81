"""What the length of a schedule decides: the order of policies, and what a number of seconds buys."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from distill_lib import records
from distill_lib.bench import tables, timing
from distill_lib.report import aggregate, differences
from distill_lib.report.differences import Difference

Rankings = Sequence[Sequence[Difference]]  # how far a policy is ahead of another at each length; at the longest it is


def rankings(study: pd.DataFrame) -> Rankings:
    """Every pair of policies that share several lengths of schedule, the one that is ahead at the longest first.

    Of each pair the differences at all lengths, the shortest first; corrected for all pairs together. `study` has rows
    of `records.read` that may be compared.
    """
    policies = [policy for policy in aggregate.ORDER if policy in set(study["policy"])]
    several = []
    for pair in itertools.combinations(policies, 2):
        cases = differences.at_every_length(study, *pair)
        if len(cases) > 1:
            ahead = cases[-1].value >= 0
            several.append(cases if ahead else differences.at_every_length(study, *reversed(pair)))
    return list(differences.holm_of_groups(dict(enumerate(several))).values())


def ranking_table(ranked: Rankings) -> pd.DataFrame:
    """Rankings as a table to print: points that a policy is ahead at each length, with n, and whether it is seen.

    The last column is the length from which on it is ahead at every one.
    """
    lengths, rows = _lengths(ranked), []
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


def ranking_summary(ranked: Rankings) -> list[str]:
    """For each length before the last: how many pairs are in their final order there, as sentences."""
    texts = []
    for length in _lengths(ranked)[:-1]:
        pairs = [(case.value > 0, cases[-1].sign) for cases in ranked for case in cases[:-1] if case.epochs == length]
        if pairs:
            same, sure = [ahead for ahead, _ in pairs], [ahead for ahead, seen in pairs if seen]
            counted = f"that of {sum(same)} of {len(same)} pairs."
            counted += f" Where the latter is seen: {sum(sure)} of {len(sure)}." if sure else ""
            texts.append(f"At {length:,.0f} epochs the order of the longest schedule is {counted}")
    return texts


def _lengths(ranked: Rankings) -> list[float]:
    return sorted({case.epochs for cases in ranked for case in cases})


def at(curves: pd.DataFrame, length: float, epoch: float) -> float | None:
    """Mean validation accuracy of runs of a length at an epoch, between two rows of their records; None without runs.

    `curves` are rows of `records.curves` of one policy; the epoch is not beyond the length of the schedule.
    """
    own = curves[curves["epochs"] == length] if len(curves) else curves
    if own.empty or epoch > length:
        return None
    return float(np.mean([np.interp(epoch, run["epoch"], run["validation_top1"]) for _, run in own.groupby("run_id")]))


def cut(curves: pd.DataFrame, short: float = 100) -> pd.DataFrame:
    """A long run that is cut beside a run that was made to be short, at equally many epochs, from `records.curves`.

    The long schedule is the longest of those with the most policies. A row a policy that has both, in the order of
    figures: mean validation accuracy (share) at the end of the short run, of the long run at that epoch, and at its
    end. The names of the columns say so.
    """
    counts = curves[curves["epochs"] > short].groupby("epochs")["policy"].nunique() if len(curves) else curves
    if counts.empty:
        return pd.DataFrame()
    long, rows = float(counts[counts == counts.max()].index.max()), {}
    for policy in aggregate.ORDER:
        own = curves[curves["policy"] == policy]
        rows[policy] = [at(own, short, short), at(own, long, short), at(own, long, long)]
    names = [aggregate.length(short), f"{long:,.0f} epochs, cut at {short:,.0f}", aggregate.length(long)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names, dtype=float).dropna()


def cut_in_words(stages: pd.DataFrame) -> str:
    """How many pairs of policies short runs, and long ones that are cut, show in the order of the ends; from `cut`."""
    pairs = list(itertools.combinations(stages.index, 2))
    if not pairs:
        return records.NOTHING
    ahead = pd.DataFrame(stages.loc[first] > stages.loc[second] for first, second in pairs)
    short, middle = (int((ahead[name] == ahead.iloc[:, -1]).sum()) for name in ahead.columns[:2])
    return (
        f"Of {len(pairs)} pairs of policies, the short runs show {short} in the order of the long ones, and the long "
        f"runs that are cut at that epoch show {middle}. These are means over seeds on validation images, not tested."
    )


LIVE, STORED = "a live teacher", "stored soft labels"


def seconds_a_step(results: Path | None = None) -> dict[str, float]:
    """What a step costs each student of the embedded study, from the benchmarks of sweeps and of soft labels.

    Seconds by way of teaching: a live teacher, many students that share one, and stored soft labels, whose share of the
    live step is measured in a benchmark of its own. Empty where a record is missing.
    """
    measured = [row for row in tables.rows("sweep", results) if isinstance(row["step"], timing.Timing)]
    live = [row["step"].median for row in measured if row["students"] == 1]
    shared = [(row["step"].median, row["students"]) for row in measured if row["students"] > 1]
    stored = [row["speed-up"] for row in tables.rows("soft_labels", results) if row.get("speed-up")]
    if not (live and shared and stored):
        return {}
    several, count = min(shared)
    return {LIVE: live[0], f"{count} students at once": several / count, STORED: live[0] / min(stored)}


def in_seconds(runs: pd.DataFrame, seconds: Mapping[str, float], policy: str) -> pd.DataFrame:
    """What each length of schedule costs a student under each way of teaching, and the accuracy at its end.

    From `seconds_a_step`, and the runs of a policy that may be averaged. A row a way and length: way, epochs, seconds,
    mean (test accuracy, a share) and n.
    """
    own = runs[runs["policy"] == policy]
    if own.empty or not seconds:
        return pd.DataFrame(columns=["way", "seconds"])
    steps, means = own.groupby("epochs")["steps"].first(), aggregate.summary(own, by=("epochs",))
    parts = [means.assign(way=way, seconds=each * means["epochs"].map(steps)) for way, each in seconds.items()]
    return pd.concat(parts, ignore_index=True)[["way", "epochs", "seconds", "mean", "n"]]


def bought(priced: pd.DataFrame) -> pd.DataFrame:
    """What each way of teaching gets in the seconds that a live teacher takes for each length but the longest.

    Text, from `in_seconds`: seconds, way, epochs, and the top-1 accuracy that is expected between the lengths of the
    records.
    """
    rows = []
    for budget in sorted(priced.loc[priced["way"] == LIVE, "seconds"])[:-1]:
        for way, own in priced.groupby("way", sort=False):
            near = own.loc[(own["seconds"] - budget).abs().idxmin()]
            epochs = near["epochs"] * (budget / near["seconds"])
            share = aggregate.expected(own.rename(columns={"mean": "test_top1"}), epochs)
            top1 = "beyond the records" if share is None else aggregate.rounded(100 * share)
            rows.append({"seconds": f"{budget:,.0f}", "way": way, "epochs": f"{epochs:,.0f}", "top-1 (%)": top1})
    return pd.DataFrame(rows)

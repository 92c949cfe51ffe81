"""What the length of a schedule decides: the order of policies, and what a number of seconds buys."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from distill_lib import records
from distill_lib.bench import tables, timing
from distill_lib.report import aggregate, differences
from distill_lib.report.differences import Difference


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Two policies at every length that both have, at the longest of which `ahead` is ahead.

    Attributes:
        ahead, behind: keys of policies.
        cases: how far `ahead` is ahead, the shortest schedule first; corrected for all rankings together.
    """

    ahead: str
    behind: str
    cases: tuple[Difference, ...]

    @property
    def since(self) -> float:
        """The length from which on `ahead` is ahead at every one."""
        same = itertools.takewhile(lambda case: case.value > 0, reversed(self.cases))
        return min((case.epochs for case in same), default=self.cases[-1].epochs)


def rankings(study: pd.DataFrame) -> list[Ranking]:
    """Every pair of policies that share several lengths of schedule.

    Args:
        study: rows of `records.read` that may be compared.
    """
    policies = [policy for policy in aggregate.ORDER if policy in set(study["policy"])]
    several = [differences.at_every_length(study, *pair) for pair in itertools.combinations(policies, 2)]
    several = [cases for cases in several if len(cases) > 1]
    corrected = iter(differences.holm(case for cases in several for case in cases))
    ranked = []
    for cases in several:
        tested = [next(corrected) for _ in cases]
        if tested[-1].value < 0:
            tested = [differences.negated(case) for case in tested]
        ranked.append(Ranking(ahead=tested[0].first, behind=tested[0].second, cases=tuple(tested)))
    return ranked


def ranking_table(ranked: Sequence[Ranking]) -> pd.DataFrame:
    """Rankings as a table to print: points that `ahead` is ahead at each length, with n, and whether it is seen."""
    lengths = sorted({case.epochs for ranking in ranked for case in ranking.cases})
    rows = []
    for ranking in ranked:
        row = {"ahead at the end": f"`{ranking.ahead}`", "behind": f"`{ranking.behind}`"}
        row |= {f"{length:,.0f} epochs": "" for length in lengths}
        row |= {f"{case.epochs:,.0f} epochs": _brief(case) for case in ranking.cases}
        rows.append(row | {"in this order from": f"{ranking.since:,.0f} epochs"})
    return pd.DataFrame(rows)


def _brief(case: Difference) -> str:
    seen = f",{aggregate.BLANK}seen" if case.sign else ""
    return f"{differences.signed(100 * case.value)}{aggregate.BLANK}({min(case.runs)}){seen}"


def ranking_summary(ranked: Sequence[Ranking]) -> list[str]:
    """For each length before the last: how many pairs are in their final order there, as sentences."""
    lengths, texts = sorted({case.epochs for ranking in ranked for case in ranking.cases}), []
    for length in lengths[:-1]:
        pairs = [(case, each.cases[-1]) for each in ranked for case in each.cases[:-1] if case.epochs == length]
        if not pairs:
            continue
        same = sum(case.value > 0 for case, _ in pairs)
        text = f"At {length:,.0f} epochs the order of the longest schedule is that of {same} of {len(pairs)} pairs."
        if sure := [case.value > 0 for case, end in pairs if end.sign]:
            text += f" Where the latter is seen: {sum(sure)} of {len(sure)}."
        texts.append(text)
    return texts


def at(curves: pd.DataFrame, length: float, epoch: float) -> float | None:
    """Mean validation accuracy of runs of a length at an epoch, between two rows of their records; None without runs.

    Args:
        curves: rows of `records.curves`, of one policy.
        length: of the schedule, in epochs.
        epoch: not beyond it.
    """
    own = curves[curves["epochs"] == length] if len(curves) else curves
    if own.empty or epoch > length:
        return None
    each = [np.interp(epoch, run["epoch"], run["validation_top1"]) for _, run in own.groupby("run_id")]
    return float(np.mean(each))


def cut(curves: pd.DataFrame, short: float = 100) -> pd.DataFrame:
    """A long run that is cut beside a run that was made to be short, at equally many epochs.

    Args:
        curves: rows of `records.curves` that may be compared.
        short: length of the short schedule, in epochs. The long one is the longest of those with the most policies.

    Returns:
        A row a policy that has both, in the order of figures: mean validation accuracy (share) at the end of the short
        run, of the long run at that epoch, and at its end. The names of the columns say so.
    """
    ended = curves[curves["epochs"] > short] if len(curves) else curves
    if ended.empty:
        return pd.DataFrame()
    counts = ended.groupby("epochs")["policy"].nunique()
    long = float(counts[counts == counts.max()].index.max())
    rows = {}
    for policy in aggregate.ORDER:
        own = curves[curves["policy"] == policy]
        stages = [at(own, short, short), at(own, long, short), at(own, long, long)]
        if None not in stages:
            rows[policy] = stages
    names = [f"{short:,.0f} epochs", f"{long:,.0f} epochs, cut at {short:,.0f}", f"{long:,.0f} epochs"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def cut_in_words(stages: pd.DataFrame) -> str:
    """How many pairs of policies short runs, and long ones that are cut, show in the order of the ends; from `cut`."""
    pairs = list(itertools.combinations(stages.index, 2))
    if not pairs:
        return records.NOTHING
    short, middle, end = (
        [stages.loc[first, name] > stages.loc[second, name] for first, second in pairs] for name in stages
    )
    same = [sum(each == last for each, last in zip(one, end, strict=True)) for one in (short, middle)]
    return (
        f"Of {len(pairs)} pairs of policies, the short runs show {same[0]} in the order of the long ones, and the long "
        f"runs that are cut at that epoch show {same[1]}. These are means over seeds on validation images, not tested."
    )


LIVE, STORED = "a live teacher", "stored soft labels"


def seconds_a_step(results: Path | None = None) -> dict[str, float]:
    """What a step costs each student of the embedded study, from the benchmarks of sweeps and of soft labels.

    Returns:
        Seconds by way of teaching: a live teacher, many students that share one, and stored soft labels, whose share of
        the live step is measured in a benchmark of its own. Empty where a record is missing.
    """
    alone = [row for row in tables.rows("sweep", results, students=1) if isinstance(row["step"], timing.Timing)]
    shared = [row for row in tables.rows("sweep", results) if row["students"] > 1 and row["step"]]
    stored = [row for row in tables.rows("soft_labels", results) if row.get("speed-up")]
    if not (alone and shared and stored):
        return {}
    live, several = alone[0]["step"].median, min(shared, key=lambda row: row["step"].median)
    count = several["students"]
    return {
        LIVE: live,
        f"{count} students at once": several["step"].median / count,
        STORED: live / min(row["speed-up"] for row in stored),
    }


def in_seconds(runs: pd.DataFrame, seconds: Mapping[str, float], policy: str) -> pd.DataFrame:
    """What each length of schedule costs a student under each way of teaching, and the accuracy at its end.

    Args:
        runs: rows of `records.read` that may be averaged.
        seconds: by way of teaching, from `seconds_a_step`.
        policy: whose runs.

    Returns:
        A row a way and length: way, epochs, seconds, mean (test accuracy, a share) and n.
    """
    own = runs[runs["policy"] == policy]
    steps = own.groupby("epochs")["steps"].first() if len(own) else {}
    means = aggregate.summary(own, by=("epochs",))[["epochs", "mean", "n"]]
    parts = [
        means.assign(way=way, seconds=[each * steps[epochs] for epochs in means["epochs"]])
        for way, each in seconds.items()
    ]
    return pd.concat(parts, ignore_index=True) if len(own) and parts else pd.DataFrame(columns=["way", "seconds"])


def bought(priced: pd.DataFrame) -> pd.DataFrame:
    """What each way of teaching gets in the seconds that a live teacher takes for each length but the longest.

    Args:
        priced: from `in_seconds`.

    Returns:
        Text: seconds, way, epochs, and the top-1 accuracy that is expected between the lengths of the records.
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

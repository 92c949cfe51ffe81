"""What the paper says, what the records say, and whether the two agree: sentences that are filled from the runs.

References:
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022, sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill_lib import views
from distill_lib.report import aggregate
from distill_lib.report.aggregate import Difference

NO_RECORDS = "no records yet"
TRUNK, MIX = "same/ic", "mix"  # the two policies that everything is compared with


@dataclass(frozen=True)
class Claim:
    """One statement of the paper beside what the records show.

    Attributes:
        paper: the statement.
        seen: what the runs show, with numbers.
        verdict: "agrees", "disagrees", "in part", "undecided" or "no records yet".
    """

    paper: str
    seen: str
    verdict: str


def all_claims(runs: pd.DataFrame) -> list[Claim]:
    """Every claim, from the table of `records.read`."""
    study = aggregate.study(runs)
    return [
        _pairs(
            study, "A student of a fixed teacher fits its training views better.", aggregate.FIXED, -1, "train_loss"
        ),
        _pairs(study, "A fixed teacher generalises worse than consistent teaching.", aggregate.FIXED, -1),
        _pairs(study, "Independent views are worse than the same view.", aggregate.INDEPENDENT, -1),
        _pairs(study, "Labels alone are worse than consistent teaching.", ("labels",), -1),
        _at(study, "Function matching trails consistent teaching in short runs.", shortest=True, wanted=-1),
        _at(study, "Function matching wins in long runs.", shortest=False, wanted=1),
        _longer(study, "With the same views for both, a longer schedule is better.", (TRUNK, MIX), 1, since=0),
        _longer(study, "A fixed teacher's students peak, and then fall back.", aggregate.FIXED, -1, since=-2),
        _reaches_teacher(study, aggregate.teacher_top1(runs)),
    ]


def table(claims: Iterable[Claim]) -> pd.DataFrame:
    """Claims as a table to print."""
    rows = [{"the paper": claim.paper, "here": claim.seen, "verdict": claim.verdict} for claim in claims]
    return pd.DataFrame(rows)


def headline(runs: pd.DataFrame) -> str:
    """The study in one sentence."""
    means = aggregate.summary(aggregate.study(runs))
    taught = means[~means["policy"].isin(list(views.BASELINES))]
    if taught.empty:
        return aggregate.NONE
    best = taught.loc[taught["mean"].astype(float).idxmax()]
    named = f"{views.NAMES[best['policy']]}, {length(best['epochs'])}"
    text = f"The best student of this book's study ({named}) gets {percent(best['mean'])} of the test images right"
    others = []
    if (teacher := aggregate.teacher_top1(runs)) is not None:
        others.append(f"its teacher {percent(teacher)}")
    labels = means[(means["policy"] == "labels") & (means["epochs"] == best["epochs"])]
    if not labels.empty:
        others.append(f"the same network, trained as long on labels alone, {percent(labels['mean'].iloc[0])}")
    return f"{text}; {' and '.join(others)}." if others else f"{text}."


def few_images(runs: pd.DataFrame) -> str:
    """Whether mixup gains on consistent teaching as training images get fewer."""
    frame = aggregate.scarce(runs)
    if frame.empty:
        return "There are no runs on part of the training images yet."
    spread = aggregate.pooled_spread(frame)  # few images may have one seed alone
    # the schedule in epochs follows the number of images, so that steps are equal: compare within such a group
    frame = aggregate.with_image_counts(frame).assign(epochs=1.0)
    parts = []
    for images, group in frame.groupby("images"):
        found = aggregate.differences(group, MIX, TRUNK, spread=spread)
        if found:
            parts.append(f"{points(found[0])} with {images:,.0f} images")
    steps = sorted({int(step) for step in frame["steps"]})
    same = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return f"Function matching minus consistent teaching, after {same} steps each: {listed(parts)}."


def fresh(runs: pd.DataFrame) -> str:
    """Whether there is a fresh run of this machine, and from when."""
    own = aggregate.study(runs, [aggregate.FRESH])
    if own.empty:
        return (
            f"There is no fresh run here: `results/fashion_{aggregate.FRESH}` holds no records. "
            "The command `nox -s study` makes them, and they appear in the study's figure of patience, and in a table."
        )
    days = sorted({date[:10] for date in own["date"]})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"A fresh run is present: {len(own)} runs from {when}, on {', '.join(sorted(set(own['device'])))}."


def fresh_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The fresh runs beside what the committed ones lead one to expect at their length.

    The expectation is interpolated between the committed means, linearly in the logarithm of the epochs.
    """
    own = aggregate.summary(aggregate.study(runs, [aggregate.FRESH]))
    means = aggregate.summary(aggregate.study(runs))
    rows = []
    for _, row in own.iterrows():
        known = means[means["policy"] == row["policy"]].sort_values("epochs")
        inside = not known.empty and known["epochs"].min() <= row["epochs"] <= known["epochs"].max()
        text = {"policy": views.NAMES[row["policy"]], "epochs": f"{row['epochs']:,.0f}", "n": int(row["n"])}
        text |= {
            "fresh run (%)": f"{100 * row['mean']:.1f}",
            "expected (%)": aggregate.ABSENT,
            "difference": aggregate.ABSENT,
        }
        if inside:
            expected = np.interp(math.log(row["epochs"]), np.log(known["epochs"].astype(float)), known["mean"])
            text["expected (%)"] = f"{100 * expected:.1f}"
            text["difference"] = signed(100 * (row["mean"] - expected))
        rows.append(text)
    return pd.DataFrame(rows)


def chosen(runs: pd.DataFrame) -> pd.DataFrame:
    """What the grid chooses for each policy by validation accuracy, beside what the study uses.

    Returns:
        Text columns; empty without a grid. Settings are learning rate / weight decay / temperature, the last left out
        where there is no teacher. `cost` is what the study's settings lose on validation, in points, if tried. All of
        the grid's shortest schedule.
    """
    grid = aggregate.selection(aggregate.grid(runs))
    study, rows = aggregate.study(runs), []
    for policy, group in grid[grid["epochs"] == grid["epochs"].min()].groupby("policy", sort=False):
        best, used = group.iloc[0], study[study["policy"] == policy]
        row = {"policy": views.NAMES[policy], "settings tried": len(group), "chosen": _settings(best)}
        row |= {"validation top-1 (%)": f"{100 * best['validation_top1']:.1f}"}
        row |= {"the study uses": aggregate.ABSENT, "cost": aggregate.ABSENT}
        if len(used):
            names = list(aggregate.CHOSEN)
            row["the study uses"] = _settings(used.iloc[0])
            tried = group[(group[names] == used.iloc[0][names].astype(float)).all(axis=1)]
            if len(tried):
                row["cost"] = f"{100 * (best['validation_top1'] - tried['validation_top1'].iloc[0]):.1f}"
        rows.append(row)
    return pd.DataFrame(rows)


def handicaps(runs: pd.DataFrame) -> str:
    """Which policies the study's settings suit badly, in a sentence; empty where each loses less than a point."""
    table = chosen(runs)
    lost = table[pd.to_numeric(table["cost"], errors="coerce") >= 1] if len(table) else table
    if lost.empty:
        return ""
    told = listed([f"{row['policy']} {row['cost']} points" for _, row in lost.iterrows()])
    return (
        f"Mind what the study's settings cost here: {told}. Such a policy could do better with settings of its own, so "
        "part of what it loses below may be due to them."
    )


def _settings(run: pd.Series) -> str:
    names = aggregate.CHOSEN
    shown = names[:2] if run["policy"] in views.BASELINES else names
    return f"{aggregate.BLANK}/{aggregate.BLANK}".join(f"{run[name]:g}" for name in shown)


def _pairs(study: pd.DataFrame, paper: str, policies: Iterable[str], wanted: int, metric: str = "test_top1") -> Claim:
    found = [(policy, aggregate.differences(study, policy, TRUNK, metric)) for policy in policies]
    found = [(policy, each) for policy, each in found if each]
    if not found:
        return Claim(paper, aggregate.NONE, NO_RECORDS)
    say = points if metric == "test_top1" else loss
    what = "Test accuracy" if metric == "test_top1" else "Training loss"
    last = max(each.epochs for _, every in found for each in every)
    told = [f"{views.NAMES[policy]} {say(every[-1])}" for policy, every in found if every[-1].epochs == last]
    other = [
        f"{views.NAMES[policy]} {say(each)} at {length(each.epochs)}"
        for policy, every in found
        for each in every
        if each.epochs != last and each.sign != every[-1].sign
    ]
    text = f"{what} minus that of consistent teaching, at {length(last)}: {listed(told)}."
    return Claim(paper, f"{text} But {listed(other)}." if other else text, _judge(found, wanted))


def _at(study: pd.DataFrame, paper: str, *, shortest: bool, wanted: int) -> Claim:
    found = aggregate.differences(study, MIX, TRUNK)
    if not found:
        return Claim(paper, aggregate.NONE, NO_RECORDS)
    one = found[0 if shortest else -1]
    seen = f"Test accuracy minus that of consistent teaching, at {length(one.epochs)}: {points(one)}."
    return Claim(paper, seen, _judge([(MIX, [one])], wanted))


def _longer(study: pd.DataFrame, paper: str, policies: Iterable[str], wanted: int, since: int) -> Claim:
    """What each policy's longest schedule gains on that at the place `since` among its schedules, shortest first."""
    means, gains = aggregate.summary(study), []
    told: dict[str, list[str]] = {}  # by the lengths compared, for not every policy has runs of every length
    for policy in policies:
        group = means[means["policy"] == policy].sort_values("epochs")
        if len(group) < 2:
            continue
        first, last = group.iloc[since], group.iloc[-1]
        errors = [aggregate.mean_error(study, row["n"], row["epochs"]) for row in (first, last)]
        gain = float(last["mean"] - first["mean"])
        one = Difference(policy, policy, last["epochs"], gain, math.hypot(*errors), int(last["n"]))
        gains.append((policy, [one]))
        lengths = f"From {length(first['epochs'])} to {length(last['epochs'])}"
        told.setdefault(lengths, []).append(f"{views.NAMES[policy]} {points(one)}")
    if not gains:
        return Claim(paper, aggregate.NONE, NO_RECORDS)
    seen = " ".join(f"{lengths}: {listed(parts)}." for lengths, parts in told.items())
    return Claim(paper, seen, _judge(gains, wanted))


def _reaches_teacher(study: pd.DataFrame, teacher: float | None) -> Claim:
    paper = "A patient student comes up to its teacher."
    means = aggregate.summary(study)
    means = means[~means["policy"].isin(list(views.BASELINES))]
    if means.empty or teacher is None:
        return Claim(paper, aggregate.NONE, NO_RECORDS)
    best = means.loc[means["mean"].astype(float).idxmax()]
    error = aggregate.mean_error(study, best["n"], best["epochs"])
    one = Difference(best["policy"], "teacher", best["epochs"], float(best["mean"] - teacher), error, int(best["n"]))
    seen = (
        f"The best student ({views.NAMES[best['policy']]}, {length(best['epochs'])}) minus its teacher: {points(one)}."
    )
    if math.isnan(error):
        return Claim(paper, seen, "undecided")
    return Claim(paper, seen, "disagrees" if one.sign < 0 else "agrees")


def _judge(found: list[tuple[str, list[Difference]]], wanted: int) -> str:
    signs = {difference.sign for _, every in found for difference in every}
    if signs == {wanted}:
        return "agrees"
    if signs == {0}:
        return "undecided"
    return "in part" if wanted in signs else "disagrees"


def points(difference: Difference) -> str:
    """A difference in points, marked as noise where it is not more than two standard errors, or where none is known."""
    return _with_noise(points_of(difference.value), difference)


def points_of(value: float) -> str:
    """A difference of shares in percentage points."""
    return f"{signed(100 * value)} points"


def loss(difference: Difference) -> str:
    """A difference of losses, marked as `points` marks one of accuracies."""
    return _with_noise(signed(difference.value, 3), difference)


def _with_noise(text: str, difference: Difference) -> str:
    if math.isnan(difference.error):
        return f"{text} (noise unknown: single runs)"
    return text if difference.sign else f"{text} (within noise)"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


def length(epochs: float) -> str:
    """Length of a schedule in words."""
    return f"{epochs:,.0f} epochs"


def listed(parts: list[str]) -> str:
    """Joins parts with semicolons, since names of policies have commas."""
    return "; ".join(parts)


def about_teacher(runs: pd.DataFrame) -> str:
    """How good the embedded teacher is, on whole test images and under crops."""
    own = aggregate.teacher_run(runs)
    if own.empty:
        return f"The teacher's own accuracy: {NO_RECORDS}."
    run = own.iloc[0]
    text = f"The teacher gets {percent(run['test_top1'])} of the test images right"
    under_crops = run.get("test_top1_under_crops", math.nan)
    if math.isnan(under_crops):
        return f"{text}."
    return f"{text}, and still {percent(under_crops)} of random inception crops of them."


def spread(runs: pd.DataFrame) -> str:
    """The standard deviation between seeds in words, for each length that has several."""
    groups = aggregate.summary(runs)
    lengths = sorted(groups.loc[groups["n"] > 1, "epochs"].unique())
    told = [f"{100 * aggregate.pooled_spread(runs, epochs=each):.2f} points at {length(each)}" for each in lengths]
    return " and ".join(told) or f"({NO_RECORDS})"

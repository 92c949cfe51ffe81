"""What the records say: means and spreads, differences with their noise, and the sentences of the book.

Nothing here is typed by hand: a sentence takes its numbers, and whether it agrees with the paper, from the runs.
A difference counts as seen when it is more than twice its standard error. The spread behind that error is pooled over
the policies at one length of schedule; where these have one seed each, the nearest length with several stands in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from distill_lib import datasets, recipes, records, views
from distill_lib.report import matching

LENGTHS = ("short", "medium", "long", "longest")
"""Variants of `fashion` whose records come with the book."""

FRESH = "quick"
"""The variant that `nox -s study` runs anew."""

FIXED = ("fix/rs", "fix/cc", "fix/ic_ens")
INDEPENDENT = ("ind/rc", "ind/ic")
SETTINGS = (
    "student", "teacher", "teacher_sha256", "batch_size", "resolution", "temperature", "learning_rate", "weight_decay",
    "warmup_steps", "crop_area", "whole", "mixup", "ensemble_crops", "optimizer", "schedule", "decay", "distance",
    "temperature_squared", "label_share", "mixup_beta", "mixup_folded", "start", "transfer_set", "label_smoothing",
    "ensemble", "dtype", "eval_side",
)  # fmt: skip
CHOSEN = ("learning_rate", "weight_decay", "temperature")  # what a grid goes through
REPEATED = ("study", "policy", "epochs", "train_images", "seed")  # what two records of one run have in common
ORDER = [*views.BASELINES, *views.POLICIES]
BLANK = "\N{NO-BREAK SPACE}"
ABSENT = "\N{EN DASH}"
NONE = "There are no such records yet."


def study(runs: pd.DataFrame, variants: Sequence[str] = LENGTHS, *, every_image: bool = True) -> pd.DataFrame:
    """The runs of `fashion` that may be compared.

    Args:
        runs: the table of `records.read`.
        variants: presets to keep.
        every_image: keep only runs on all training images.

    Returns:
        The rows of these presets, as `comparable` leaves them.
    """
    kept = runs[runs["study"].isin([f"fashion_{variant}" for variant in variants])]
    return comparable(kept, every_image=every_image)


def comparable(runs: pd.DataFrame, *, every_image: bool = True) -> pd.DataFrame:
    """Runs that may be averaged: those whose teacher was not replayed.

    Of each preset and policy only the most common settings stay, so that a run with another learning rate is never
    averaged in; and of those each seed once, whether it was taught alone or in a class.

    Args:
        runs: the table of `records.read`.
        every_image: keep only runs on all training images.
    """
    kept = live(runs)
    if every_image and "train_images" in kept:
        kept = kept[kept["train_images"].isna()]
    return _each_seed_once(kept)


def scarce(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of consistent teaching and function matching on part of the images, and those on all with as many steps."""
    kept = study(runs, ["medium"], every_image=False)
    kept = kept[kept["policy"].isin(["same/ic", "mix"])]
    if kept.empty or kept["train_images"].isna().all():
        return kept.iloc[:0]
    wanted = kept.loc[kept["train_images"].notna(), "steps"].median()
    return kept[abs(kept["steps"] / wanted - 1) < 0.01]  # schedules in whole epochs give not quite equal steps


def grid(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that the hyper-parameters were chosen from: the same in all but these, and each seed once."""
    kept = live(runs)[lambda table: table["study"] == "fashion_grid"]
    return _each_seed_once(kept, apart=CHOSEN)


def live(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the runs that replayed stored answers: no figure may mix these with the others."""
    return runs[runs["stored"].isna()] if "stored" in runs else runs


def replayed(runs: pd.DataFrame, variants: Sequence[str] = LENGTHS) -> pd.DataFrame:
    """Runs that replayed stored answers, beside those of the same policy and length that asked the teacher.

    Args:
        runs: the table of `records.read`.
        variants: presets to keep.

    Returns:
        One row a schedule, policy and number of kept logits: `epochs`, `policy`, `kept`, `n`, `bytes_per_view`,
        `test_top1` and `live` (means) and `difference`, a `Difference` of the two with the live runs' noise; None where
        there is no live run.
    """
    columns = ["epochs", "policy", "kept", "n", "bytes_per_view", "test_top1", "live", "difference"]
    if "stored" not in runs:
        return pd.DataFrame(columns=columns)
    kept = runs[runs["stored"].notna() & runs["train_images"].isna()]
    kept = _each_seed_once(kept[kept["study"].isin([f"fashion_{variant}" for variant in variants])], apart=("stored",))
    asked, rows = study(runs, variants), []
    for (epochs, policy, stored), group in kept.groupby(["epochs", "policy", "stored"]):
        live_runs = asked[(asked["epochs"] == epochs) & (asked["policy"] == policy)]["test_top1"]
        row = {"epochs": epochs, "policy": policy, "kept": int(stored), "n": len(group)}
        row |= {name: group[name].mean() for name in ("bytes_per_view", "test_top1")}
        row |= {"live": live_runs.mean(), "difference": None}
        if len(live_runs):
            error = pooled_spread(asked, epochs=epochs) * math.sqrt(1 / len(group) + 1 / len(live_runs))
            value = row["test_top1"] - row["live"]
            fewest = min(len(group), len(live_runs))
            row["difference"] = Difference(f"{row['kept']} logits", "live", epochs, value, error, fewest)
        rows.append(row)
    return in_order(pd.DataFrame(rows, columns=columns))


def _each_seed_once(runs: pd.DataFrame, apart: Sequence[str] = ()) -> pd.DataFrame:
    """Runs with the most common settings; runs that differ in the columns `apart` are told apart and all stay."""
    found = _most_common_settings(runs, [name for name in SETTINGS if name not in apart])
    return found.drop_duplicates([name for name in (*REPEATED, *apart) if name in found]) if "seed" in found else found


def _most_common_settings(runs: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    columns = [name for name in settings if name in runs]
    if runs.empty or not columns:
        return runs
    named = [name for name in columns if name != "teacher_sha256"]  # which is no field of a recipe
    values = {name: [str(matching.value_of(run, name)) for run in runs[named].to_dict("records")] for name in named}
    described = runs.assign(**values)[columns].astype(str).agg("|".join, axis=1)
    usual = described.groupby([runs["study"], runs["policy"]]).transform(lambda group: group.mode().iloc[0])
    return runs[described == usual]


def with_image_counts(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds the column `images`: how many training images each run of `fashion` used."""
    return runs.assign(images=runs["train_images"].fillna(datasets.get("fashion").counts["train"]).astype(int))


def teacher_top1(runs: pd.DataFrame) -> float | None:
    """The embedded teacher's own test accuracy, a share; None without its record."""
    own = teacher_run(runs)
    return None if own.empty else float(own["test_top1"].iloc[0])


def teacher_run(runs: pd.DataFrame) -> pd.DataFrame:
    """The run that made the embedded teacher, a row of the table of `records.read`; none without its record."""
    own = runs[runs["study"] == "fashion_teacher_full"]
    if own.empty:
        return own
    preset = recipes.get("fashion_teacher", "full")  # trials with other seeds and lengths have its study's name too
    return own[(own["seed"] == preset.seed) & (own["epochs"] == preset.epochs)].head(1)


def summary(runs: pd.DataFrame, metric: str = "test_top1", by: Sequence[str] = ("policy", "epochs")) -> pd.DataFrame:
    """Mean and spread over seeds.

    Args:
        runs: the table of `records.read`.
        metric: a column of it.
        by: columns whose values make a group.

    Returns:
        One row a group: the columns of `by`, and `n`, `mean`, `spread` (sample standard deviation; NaN where n is 1),
        `low` and `high`.
    """
    names = ["n", "mean", "spread", "low", "high"]
    if runs.empty or metric not in runs:
        return pd.DataFrame(columns=[*by, *names])
    grouped = runs.dropna(subset=[metric]).groupby(list(by), dropna=False)[metric]
    table = grouped.agg(n="count", mean="mean", spread="std", low="min", high="max")
    return in_order(table.reset_index())


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sorts rows by policy, in the order of figures and tables; within a policy their order stays."""
    if "policy" not in table:
        return table
    return table.sort_values("policy", key=lambda keys: keys.map(ORDER.index), kind="stable", ignore_index=True)


def mean_error(runs: pd.DataFrame, n: float, epochs: float, by: str = "policy") -> float:
    """Standard error of the mean test accuracy of n runs of one length, from the spread that `pooled_spread` pools."""
    return pooled_spread(runs, epochs=epochs, by=by) / math.sqrt(n)


def pooled_spread(
    runs: pd.DataFrame, metric: str = "test_top1", epochs: float | None = None, by: str = "policy"
) -> float:
    """Standard deviation between seeds, pooled over the policies of one length of schedule.

    Args:
        runs: the table of `records.read`.
        metric: a column of it.
        epochs: the length; where no policy has several seeds at it, the nearest length that has some stands in. None
            pools over all lengths.
        by: the column that is pooled over.

    Returns:
        The standard deviation; NaN if no policy has several seeds anywhere.
    """
    groups = summary(runs, metric, (by, "epochs"))
    several = groups[groups["n"] > 1]
    if several.empty:
        return math.nan
    if epochs is not None:
        nearest = min(several["epochs"].unique(), key=lambda length: abs(math.log(length / epochs)))
        several = several[several["epochs"] == nearest]
    freedom = several["n"] - 1
    return float(math.sqrt((several["spread"] ** 2 * freedom).sum() / freedom.sum()))


@dataclass(frozen=True)
class Difference:
    """How much `first` lies above `second` at one schedule.

    Attributes:
        first, second: policies.
        epochs: length of the schedule.
        value: difference of the means.
        error: its standard error; NaN where too few runs tell it.
        runs: runs behind the smaller of the two means.
    """

    first: str
    second: str
    epochs: float
    value: float
    error: float
    runs: int

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is more than two standard errors; else, and where none is known, 0."""
        return int(math.copysign(1, self.value)) if abs(self.value) > 2 * self.error else 0


def differences(
    runs: pd.DataFrame, first: str, second: str, metric: str = "test_top1", spread: float | None = None
) -> list[Difference]:
    """Compares two policies at every schedule that has both, the shortest first.

    Args:
        runs: the table of `records.read`.
        first: a policy.
        second: the policy that it is compared with.
        metric: a column of it.
        spread: standard deviation between seeds; None pools it over `runs`, schedule by schedule.
    """
    table = summary(runs, metric)
    a, b = (table[table["policy"] == policy].set_index("epochs") for policy in (first, second))
    found = []
    for epochs in sorted(set(a.index) & set(b.index)):
        one, other = a.loc[epochs], b.loc[epochs]
        deviation = pooled_spread(runs, metric, epochs) if spread is None else spread
        error = deviation * math.sqrt(1 / one["n"] + 1 / other["n"])
        fewest = int(min(one["n"], other["n"]))
        found.append(Difference(first, second, epochs, float(one["mean"] - other["mean"]), error, fewest))
    return found


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The study as a table to print: one row a schedule and policy, "mean ± spread" over n seeds."""
    columns = ["epochs", "policy", "n", "test top-1 (%)", "agreement (%)", "KL to the teacher", "minutes"]
    if runs.empty:
        return pd.DataFrame(columns=columns)
    rows = []
    groups = runs.groupby(["epochs", "policy"])
    for epochs, policy in sorted(groups.groups, key=lambda key: (key[0], ORDER.index(key[1]))):
        group = groups.get_group((epochs, policy))
        rows.append(
            {
                "epochs": f"{epochs:,.0f}",
                "policy": views.NAMES[policy],
                "n": len(group),
                "test top-1 (%)": mean_spread(100 * group["test_top1"]),
                "agreement (%)": _optional(100 * group.get("test_agreement", pd.Series(dtype=float))),
                "KL to the teacher": _optional(group.get("test_kl", pd.Series(dtype=float)), digits=3),
                "minutes": f"{group['wall_seconds'].median() / 60:.1f}",
            }
        )
    return pd.DataFrame(rows, columns=columns)


def selection(grid: pd.DataFrame) -> pd.DataFrame:
    """Settings that were tried, best validation accuracy first within each policy.

    Returns:
        Columns policy, epochs, learning_rate, weight_decay, temperature, n, validation_top1 (mean over seeds).
    """
    by = ["policy", "epochs", *CHOSEN]
    table = summary(grid, "validation_top1", by).rename(columns={"mean": "validation_top1"})
    table = table[[*by, "n", "validation_top1"]]
    best_first = table.sort_values("validation_top1", ascending=False)
    return in_order(best_first.sort_values("epochs", kind="stable"))


def sources(*frames: pd.DataFrame) -> str:
    """The provenance line of a figure that shows several tables of runs."""
    full = [frame for frame in frames if not frame.empty]
    return records.provenance(pd.concat(full) if full else pd.DataFrame())


def mean_spread(values: pd.Series, digits: int = 1) -> str:
    """Mean and sample standard deviation, as in 84.6 ± 0.3; a single value stands alone."""
    text = f"{values.mean():.{digits}f}"
    return text if len(values) < 2 else f"{text}{BLANK}±{BLANK}{values.std():.{digits}f}"


def _optional(values: pd.Series, digits: int = 1) -> str:
    values = values.dropna()
    return ABSENT if values.empty else mean_spread(values, digits)

"""What the records say: which runs may be compared, and their means and spreads."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from distill_lib import datasets, recipes, records, views
from distill_lib.report import differences, matching

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
    """Runs of consistent teaching and function matching on few to all images, with equally many steps."""
    kept = live(runs)[lambda table: (table["study"] == "fashion_support") & table["policy"].isin(["same/ic", "mix"])]
    if kept.empty:
        return kept
    kept = kept[abs(kept["steps"] / kept["steps"].mode().iloc[0] - 1) < 0.01]  # whole epochs give not quite equal steps
    groups = kept.groupby("train_images", dropna=False)  # fewer images than a batch make a smaller batch
    return pd.concat([_each_seed_once(group) for _, group in groups])


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
        `test_top1` and `live` (means) and `difference`, a `Difference` of the two, corrected for their number; None
        where there is no live run.
    """
    columns = ["epochs", "policy", "kept", "n", "bytes_per_view", "test_top1", "live", "difference"]
    if "stored" not in runs:
        return pd.DataFrame(columns=columns)
    kept = runs[runs["stored"].notna() & runs["train_images"].isna()]
    kept = _each_seed_once(kept[kept["study"].isin([f"fashion_{variant}" for variant in variants])], apart=("stored",))
    asked, rows = study(runs, variants), []
    for (epochs, policy, stored), group in kept.groupby(["epochs", "policy", "stored"]):
        live_runs = asked[(asked["epochs"] == epochs) & (asked["policy"] == policy)]
        row = {"epochs": epochs, "policy": policy, "kept": int(stored), "n": len(group)}
        row |= {name: group[name].mean() for name in ("bytes_per_view", "test_top1")}
        difference = differences.compare(group, live_runs, (f"{row['kept']} logits", "live"))
        rows.append(row | {"live": live_runs["test_top1"].mean(), "difference": difference})
    corrected = iter(differences.holm(row["difference"] for row in rows if row["difference"]))
    rows = [row | {"difference": next(corrected) if row["difference"] else None} for row in rows]
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


def best(runs: pd.DataFrame) -> pd.DataFrame:
    """The students of the policy and length that are best on validation images; none where no teacher was asked."""
    taught = runs[~runs["policy"].isin(list(views.BASELINES))]
    means = summary(taught, "validation_top1")
    if means.empty:
        return taught.iloc[:0]
    chosen = means.loc[means["mean"].astype(float).idxmax()]
    return taught[(taught["policy"] == chosen["policy"]) & (taught["epochs"] == chosen["epochs"])]


def own_seconds(runs: pd.DataFrame) -> pd.Series:
    """Wall time of each run; students of a class share theirs."""
    return runs["wall_seconds"] / (runs["class_size"].fillna(1) if "class_size" in runs else 1)


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
                "minutes": f"{own_seconds(group).median() / 60:.1f}",
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
    text = rounded(values.mean(), digits)
    return text if len(values) < 2 else f"{text}{BLANK}±{BLANK}{values.std():.{digits}f}"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{rounded(100 * share)} %"


def rounded(value: float, digits: int = 1) -> str:
    """A number as all pages print it: what arithmetic adds in the last bits does not decide how a half is rounded."""
    return f"{round(value, 9):.{digits}f}"


def _optional(values: pd.Series, digits: int = 1) -> str:
    values = values.dropna()
    return ABSENT if values.empty else mean_spread(values, digits)

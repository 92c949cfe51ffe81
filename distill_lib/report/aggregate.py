"""What the records say: which runs may be compared, and their means and spreads."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from distill_lib import recipes, records, views
from distill_lib.errors import aligned, unknown
from distill_lib.experiments import matching
from distill_lib.report import differences

LENGTHS = ("short", "medium", "long", "longest")  # variants of `fashion` whose records come with the book
FRESH = "quick"  # the variant that `nox -s study` runs anew
CHOSEN = ("learning_rate", "weight_decay", "temperature")  # what a grid goes through
ORDER = [*views.BASELINES, *views.POLICIES]
BLANK = "\N{NO-BREAK SPACE}"
ABSENT = "\N{EN DASH}"
NONE = "There are no such records yet."
_TOLD_APART = {*matching.CHANCE, "dataset", "policy", "epochs", "train_images", "stored"}
_NAMES = [field.name for field in dataclasses.fields(recipes.Recipe)]
_SETTINGS = (*(name for name in _NAMES if name not in _TOLD_APART), "teacher_sha256")
_REPEATED = ("study", "policy", "epochs", "train_images", "seed")  # what two records of one run have in common


def study(runs: pd.DataFrame, variants: Sequence[str] = LENGTHS) -> pd.DataFrame:
    """The runs of these presets of `fashion`, rows of `records.read`, on all images by a live teacher, to be averaged.

    Of each preset and policy only the most common settings stay, and of those each seed once.
    """
    return _comparable(live(matching.having(runs, "train_images", None)), variants)


def grid(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that the hyper-parameters were chosen from: the same in all but these, and each seed once."""
    return _comparable(live(runs), ["grid"], CHOSEN)


def replays(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the study that replayed stored answers; each seed and number of kept logits once."""
    stored = runs[runs["stored"].notna()] if "stored" in runs else runs.iloc[:0]
    return _comparable(matching.having(stored, "train_images", None), LENGTHS, ["stored"])


def live(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the runs that replayed stored answers: no figure may mix these with the others."""
    return runs[runs["stored"].isna()] if "stored" in runs else runs


def _comparable(runs: pd.DataFrame, variants: Sequence[str], apart: Sequence[str] = ()) -> pd.DataFrame:
    """Runs with the most common settings; runs that differ in the columns `apart` are told apart and all stay."""
    runs = runs[runs["study"].isin([f"fashion_{variant}" for variant in variants])]
    columns = [name for name in _SETTINGS if name in runs and name not in apart]
    if columns and not runs.empty:
        named = [name for name in columns if name != "teacher_sha256"]  # which is no field of a recipe
        known = runs.assign(**{name: list(map(str, matching.values(runs, name))) for name in named})
        described = known[columns].astype(str).agg("|".join, axis=1)
        usual = described.groupby([runs["study"], runs["policy"]]).transform(lambda group: group.mode().iloc[0])
        runs = runs[described == usual]
    same = [name for name in (*_REPEATED, *apart) if name in runs]
    return runs.drop_duplicates(same) if "seed" in runs else runs


def replayed(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of the study that replayed stored answers, beside live ones: a row a length, policy and `kept` logits.

    `test_top1` and `live` are means; their `difference`, corrected for all, is None where there is no live run.
    """
    asked, stored, rows = study(runs), replays(runs), []
    for (epochs, policy, kept), group in stored.groupby(["epochs", "policy", "stored"]) if len(stored) else ():
        beside = asked[(asked["epochs"] == epochs) & (asked["policy"] == policy)]
        row = {"epochs": epochs, "policy": policy, "kept": int(kept), "n": len(group)}
        row |= group[["bytes_per_view", "test_top1"]].mean().to_dict() | {"live": beside["test_top1"].mean()}
        rows.append(row | {"difference": differences.compare(group, beside, (f"{kept:.0f} logits", "live"))})
    corrected = differences.holm_of_groups({number: [row["difference"]] for number, row in enumerate(rows)})
    names = ["epochs", "policy", "kept", "n", "bytes_per_view", "test_top1", "live"]
    several = [next(iter(each), None) for each in corrected.values()]
    return in_order(pd.DataFrame(rows, columns=names).assign(difference=pd.Series(several, dtype=object)))


def teacher_top1(runs: pd.DataFrame) -> float | None:
    """The embedded teacher's own test accuracy, a share; None without its record."""
    return next(iter(teacher_run(runs)["test_top1"].astype(float)), None)


def teacher_run(runs: pd.DataFrame) -> pd.DataFrame:
    """The run that made the embedded teacher, a row of the table of `records.read`; none without its record."""
    own, preset = runs[runs["study"] == "fashion_teacher_full"], recipes.get("fashion_teacher", "full")
    for name in ("student", "seed", "epochs"):  # other teachers have its study's name too
        own = own[own[name] == getattr(preset, name)] if len(own) else own
    return own.head(1)


def summary(runs: pd.DataFrame, metric: str = "test_top1", by: Sequence[str] = ("policy", "epochs")) -> pd.DataFrame:
    """A column of `records.read` over seeds, a row a group: `n`, `mean`, `spread` (of a sample), `low` and `high`."""
    if runs.empty or metric not in runs:
        return pd.DataFrame(columns=[*by, "n", "mean", "spread", "low", "high"])
    grouped = runs.dropna(subset=[metric]).groupby(list(by), dropna=False)[metric]
    return in_order(grouped.agg(n="count", mean="mean", spread="std", low="min", high="max").reset_index())


def expected(runs: pd.DataFrame, epochs: float) -> float | None:
    """Test accuracy at a length between those of runs of one policy, linear in the logarithm; elsewhere None."""
    means = summary(runs, by=("epochs",)).sort_values("epochs")
    if means.empty or not means["epochs"].min() <= epochs <= means["epochs"].max():
        return None
    return float(np.interp(math.log(epochs), np.log(means["epochs"].astype(float)), means["mean"].astype(float)))


def at(curves: pd.DataFrame, length: float, epoch: float) -> float | None:
    """Mean validation accuracy at an epoch of the runs of a length, rows of `records.curves` of one policy, or None."""
    own = curves[curves["epochs"] == length] if len(curves) else curves
    if own.empty or epoch > length:
        return None
    return float(np.mean([np.interp(epoch, run["epoch"], run["validation_top1"]) for _, run in own.groupby("run_id")]))


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


def own_seconds(runs: pd.DataFrame) -> "pd.Series[float]":
    """Wall time of each run; students of a sweep share theirs."""
    return runs["wall_seconds"] / (runs["students_per_step"].fillna(1) if "students_per_step" in runs else 1)


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The study as text: a row for each schedule and policy, "mean ± spread" over n seeds."""
    rows, ordered = [], in_order(runs).sort_values("epochs", kind="stable") if len(runs) else runs
    for (epochs, policy), group in ordered.groupby(["epochs", "policy"], sort=False) if len(runs) else ():
        group = group.reindex(columns=[*group, *{"test_agreement", "test_kl"} - {*group}])
        row = {"epochs": f"{epochs:,.0f}", "policy": views.NAMES[policy], "n": len(group)}
        row |= {"test top-1 (%)": mean_spread(100 * group["test_top1"])}
        row |= {"agreement (%)": mean_spread(100 * group["test_agreement"])}
        row |= {"KL to the teacher": mean_spread(group["test_kl"], digits=3)}
        rows.append(row | {"minutes": f"{own_seconds(group).median() / 60:.1f}"})
    return pd.DataFrame(rows)


def selection(grid: pd.DataFrame) -> pd.DataFrame:
    """Settings that were tried, with n and mean `validation_top1`, the best first within each policy and length."""
    by = ["policy", "epochs", *CHOSEN]
    table = summary(grid, "validation_top1", by).rename(columns={"mean": "validation_top1"})
    best_first = table[[*by, "n", "validation_top1"]].sort_values("validation_top1", ascending=False)
    return in_order(best_first.sort_values("epochs", kind="stable"))


def summarise(study: str, *, mock: bool = False) -> str:
    """The table of a study, a folder of results, as text, without replayed runs; DistillError if there are none."""
    frame = records.read(mock=mock)
    if study not in set(frame["study"]):
        raise unknown("study", study, sorted(set(frame["study"])))
    frame = live(frame[frame["study"] == study])
    return f"{results_table(frame).to_string(index=False)}\n\n{records.provenance(frame)}"


def studies() -> str:
    """The studies that there are records of, each with how many runs it has, as lines of text."""
    counts = records.read()["study"].value_counts().sort_index()
    lines = [(study, f"{count} run{'s' if count > 1 else ''}") for study, count in counts.items()]
    return aligned(lines) or f"no runs in {records.find_results()}"


def mean_spread(values: "pd.Series[float]", digits: int = 1) -> str:
    """Mean and sample standard deviation, as in 84.6 ± 0.3; a single value stands alone, and none is a dash."""
    values = values.dropna()
    if values.empty:
        return ABSENT
    text = rounded(values.mean(), digits)
    return text if len(values) < 2 else f"{text}{BLANK}±{BLANK}{values.std():.{digits}f}"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{rounded(100 * share)} %"


def rounded(value: float, digits: int = 1) -> str:
    """A number as all pages print it: what arithmetic adds in the last bits does not decide how a half is rounded."""
    return f"{round(value, 9):.{digits}f}"


def length(epochs: float) -> str:
    """Length of a schedule in words."""
    return f"{epochs:,.0f} epochs"


def in_epochs(epochs: float) -> str:
    """A length of schedule as tables print it."""
    return f"{epochs:,.4g}" if epochs < 1000 else f"{epochs:,.0f}"

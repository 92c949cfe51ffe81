"""What the records of `experiments.stress` say: networks under stress as tables, and how their ranks go together."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from distill_lib import records, views
from distill_lib.experiments.stress import CLEAN, METRICS, TEACHER
from distill_lib.report import differences

NAMES = views.NAMES | {TEACHER: "the teacher"}
FILE = Path(__file__).parents[1] / "data" / "stress_tables.toml"
COLUMNS, _COMPARED = tomllib.loads(FILE.read_text(encoding="utf-8")).values()
RANKS, ROUNDED = _COMPARED["under_shift"], _COMPARED["in_few_bits"]


def tidy(record: records.Record | None) -> pd.DataFrame:
    """A record as a table: a row a network and condition, with `family`, `severity` and the metrics."""
    if record is None:
        return pd.DataFrame(columns=["policy", "epochs", "seed", "run_id", "family", "severity", *METRICS])
    families, severities = zip(*record["conditions"], strict=True)
    parts = [
        pd.DataFrame(each | {"family": families, "severity": severities})
        for each in [record["teacher"], *record["students"]]
    ]
    return pd.concat(parts, ignore_index=True)


def networks(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a network of `tidy`: what it is, its metrics on clean images, and `under_` each their mean under shift."""
    names = ["policy", "epochs", "seed", "run_id"]
    clean = frame[frame["family"] == CLEAN].set_index(names)[[*METRICS]]
    under = frame[frame["family"] != CLEAN].groupby(names, dropna=False)[[*METRICS]].mean()
    table = clean.join(under.add_prefix("under_")).reset_index()
    return table.assign(lost=table["top1"] - table["under_top1"])


def provenance(record: records.Record | None) -> str:
    """Where a record comes from, in a line; empty without one."""
    if record is None:
        return ""
    students, made = len(record["students"]), f"{record['device']}; {record['date'][:10]}"
    return f"{students} students on {record['images']:,} test images; {made}; code {record['commit'][:7]}."


def network(policy: str, epochs: float) -> dict[str, str]:
    """What a network is, as columns of a table to print; the teacher's `epochs` are NaN."""
    return {"network": NAMES[policy], "epochs": "" if math.isnan(epochs) else f"{epochs:,.0f}"}


def lost(own: pd.DataFrame, record: records.Record | None) -> pd.DataFrame:
    """What a form costs students that were trained further, as `test_top1`, a share of the test images.

    A row a `policy`, `form`, `way` and `seed`: "in training", where a row of `own` (of `records.read`) was trained
    further in its `compression`, below the one of equal policy and seed that was not; or "afterwards", where that one
    is judged in a form in the record, below itself as it is.
    """
    names = ["policy", "seed", "view_seed", "epochs"]
    if own.empty or record is None:
        return pd.DataFrame(columns=[*names, "form", "way", "test_top1"])
    further = own[own["start"].notna()]
    plain = further[further["compression"] == "none"]
    trained = further[further["compression"] != "none"].merge(plain, on=names, suffixes=("", "_plain"))
    trained = trained.assign(test_top1=trained["test_top1_plain"] - trained["test_top1"], way="in training")
    after = tidy(record).merge(plain[["run_id", "view_seed"]], on="run_id").rename(columns={"family": "form"})
    clean = after["run_id"].map(after[after["form"] == CLEAN].set_index("run_id")["top1"])
    after = after.assign(test_top1=clean - after["top1"], way="afterwards")[after["form"] != CLEAN]
    return pd.concat([after, trained.assign(form=trained["compression"])])[[*names, "form", "way", "test_top1"]]


def ranks(own: pd.DataFrame, compared: Sequence[Sequence[str]] = RANKS) -> pd.DataFrame:
    """Spearman's rank correlation over students, rows of `networks`, as text, with a 95 % interval.

    Its standard error is that of Bonett and Wright, Psychometrika 65, 2000.
    """
    students, rows = own[own["policy"] != TEACHER], []
    for first, second in compared if len(students) > 3 else ():
        value = float(stats.spearmanr(students[COLUMNS[first]], students[COLUMNS[second]]).statistic)
        reach = stats.norm.ppf(0.975) * math.sqrt((1 + value**2 / 2) / (len(students) - 3))
        centre = np.arctanh(np.clip(value, -0.999, 0.999))
        low, high = (differences.signed(math.tanh(centre + sign * reach), 2) for sign in (-1, 1))
        row = {"ranks by": first, "and by": second, "students": len(students)}
        rows.append(row | {"correlation": differences.signed(value, 2), "95 % interval": f"{low} to {high}"})
    return pd.DataFrame(rows)

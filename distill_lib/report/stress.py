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
from distill_lib.models import compression
from distill_lib.report import aggregate, differences

NAMES = views.NAMES | {TEACHER: "the teacher"}
FILE = Path(__file__).parents[1] / "data" / "stress_tables.toml"
SHOWN, COLUMNS, _COMPARED = tomllib.loads(FILE.read_text(encoding="utf-8")).values()
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


def table(own: pd.DataFrame) -> pd.DataFrame:
    """Rows of `networks` as text: each metric on clean images and, behind a bar, under shift."""
    rows = []
    for each in own.to_dict("records"):
        row = _network(each["policy"], each["epochs"])
        for metric, (name, scale, digits) in SHOWN.items():
            pair = (aggregate.rounded(scale * each[column], digits) for column in (metric, f"under_{metric}"))
            row[name] = " | ".join(pair)
        rows.append(row | {"points lost": aggregate.rounded(100 * each["lost"])})
    return pd.DataFrame(rows)


def families(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean top-1 in percent over the severities of each family, as text: a row a family, a column a network."""
    own = frame.assign(network=frame["policy"].map(NAMES))
    means = 100 * own.pivot_table("top1", "family", "network", sort=False)
    return means.map(aggregate.rounded).reset_index().rename_axis(columns=None)


def told(record: records.Record | None) -> str:
    """Where a record comes from, in a line; empty without one."""
    if record is None:
        return ""
    students, made = len(record["students"]), f"{record['device']}; {record['date'][:10]}"
    return f"{students} students on {record['images']:,} test images; {made}; code {record['commit'][:7]}."


def by_bits(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of `tidy` for compressed networks as text, a row a network: top-1 (%) | divergence from the teacher."""
    rows = dict[str, dict[str, str]]()
    for each in frame.to_dict("records"):
        about = each["policy"], each["epochs"]
        row = rows.setdefault(f"{about} {each['run_id']}", _network(*about))
        cell = f"{aggregate.rounded(100 * each['top1'])} | {aggregate.rounded(each['kl'], 2)}"
        row[_words(each["family"])] = cell
    return pd.DataFrame(rows.values())


def sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """Kilobytes of teacher and student by form, as text."""
    rows = []
    for family, own in frame.groupby("family", sort=False):
        kilobytes = own.groupby(own["policy"] == TEACHER)["bytes"].first() / 1000
        rows.append({"weights in": _words(family), "a student (kB)": f"{kilobytes[False]:,.0f}"})
        rows[-1]["the teacher (kB)"] = f"{kilobytes[True]:,.0f}"
    return pd.DataFrame(rows)


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


def _network(policy: str, epochs: float) -> dict[str, str]:
    return {"network": NAMES[policy], "epochs": "" if math.isnan(epochs) else f"{epochs:,.0f}"}


def _words(family: str) -> str:
    return compression.FORMS["none" if family == CLEAN else family].words

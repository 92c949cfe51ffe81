"""Differences between groups of runs: what they are, how sure they are, and how pages word them.

Runs of two groups that share seed and views are compared in pairs, others by Welch's test; what a page compares is
corrected for the number of comparisons by Holm's method (Scandinavian Journal of Statistics 6, 1979). Single runs have
no spread, and decide nothing.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from distill_lib.records import NOTHING

Key = TypeVar("Key")

LEVEL = 0.05  # a corrected p-value below this one is called seen
COLUMNS = ("n", "difference", "95 % interval", "p, corrected")
_IN_POINTS = ("top1", "agreement", "miou")  # shares; any other metric is a loss
_NO_SPREAD = 1e-9  # of accuracies or losses: less is rounding


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much `first` lies above `second`."""

    first: str
    second: str
    epochs: float  #: length of the schedule, of `first` where they differ
    value: float  #: difference of the means; of pairs, over these alone
    error: float = math.nan  #: standard error; as the next three NaN where a side has one run, or runs have no spread
    low: float = math.nan  #: lower end of the 95 % interval, from Student's t
    high: float = math.nan
    p: float = math.nan  #: two-sided, of the paired test or of Welch's
    corrected: float = math.nan  #: p after `holm`
    runs: tuple[int, int] = (1, 1)  #: of either side that took part
    paired: bool = False  #: whether these are pairs with common seed and views
    metric: str = "test_top1"  #: column of the records

    @property
    def single(self) -> bool:
        """Whether a side is one run."""
        return min(self.runs) < 2

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is seen after correction, else 0."""
        return int(math.copysign(1, self.value)) if not self.single and self.corrected < LEVEL else 0


def compare(
    first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str], metric: str = "test_top1"
) -> Difference | None:
    """Compares a metric of two named groups of runs, rows of `records.read`; None where one is empty.

    At least two pairs of common seed and views are compared as such, without the other runs; else all by Welch's test.
    """
    a, b = (_by_chance(group, metric) for group in (first, second))
    if a.empty or b.empty:
        return None
    common = a.index.intersection(b.index)
    if paired := len(common) > 1:
        a, b = a[common], b[common]
    about: dict[str, Any] = {"value": float(a.mean() - b.mean()), "paired": paired, "metric": metric}
    test = stats.ttest_rel if paired else functools.partial(stats.ttest_ind, equal_var=False)
    about |= _tested([a - b] if paired else [a, b], test, a, b) | {"runs": (len(a), len(b))}
    return Difference(first=names[0], second=names[1], epochs=float(first["epochs"].iloc[0]), **about)


def against(runs: pd.DataFrame, value: float, names: tuple[str, str]) -> Difference:
    """Compares the test accuracy of runs with that of one given network, a share, which is taken as it is."""
    above, epochs = runs["test_top1"] - value, float(runs["epochs"].iloc[0])
    about: dict[str, Any] = _tested([above], stats.ttest_1samp, above, 0.0)
    about |= {"value": float(above.mean()), "runs": (len(above), len(above))}
    return Difference(first=names[0], second=names[1], epochs=epochs, **about)


def _by_chance(runs: pd.DataFrame, metric: str) -> pd.Series:
    """Values of a metric by seed and views; a table without seeds, such as the paper's, has single runs."""
    if metric not in runs:
        return pd.Series(dtype=float)
    runs = runs.dropna(subset=[metric])
    values = runs[metric].astype(float)
    return values.set_axis(pd.MultiIndex.from_arrays([runs["seed"], views_of(runs)])) if "seed" in runs else values


def _tested(spreads: Sequence[pd.Series], test: Any, *sides: Any) -> dict[str, float]:
    if min(map(len, spreads)) < 2 or max(map(np.ptp, spreads)) < _NO_SPREAD:
        return {}
    result = test(*sides)
    low, high = map(float, result.confidence_interval(0.95))
    return {"error": math.hypot(*map(stats.sem, spreads)), "low": low, "high": high, "p": float(result.pvalue)}


def at_every_length(runs: pd.DataFrame, first: str, second: str, metric: str = "test_top1") -> list[Difference]:
    """Compares two policies at every length of schedule that has both, the shortest first."""
    sides = [[group[group["policy"] == each] for each in (first, second)] for _, group in runs.groupby("epochs")]
    return [each for own, other in sides if (each := compare(own, other, (first, second), metric))]


def holm(differences: Iterable[Difference]) -> list[Difference]:
    """Fills in the corrected p-values of all that a page compares; what has none is no test, and does not count."""
    every = list(differences)
    order = sorted((place for place, each in enumerate(every) if each.p == each.p), key=lambda place: every[place].p)
    multiplied = [left * every[place].p for left, place in zip(range(len(order), 0, -1), order, strict=True)]
    for place, corrected in zip(order, np.maximum.accumulate(np.minimum(1.0, multiplied)), strict=True):
        every[place] = dataclasses.replace(every[place], corrected=float(corrected))
    return every


def holm_of_groups(groups: Mapping[Key, Iterable[Difference | None]]) -> dict[Key, list[Difference]]:
    """Groups of differences, corrected for the number of all of them together; None is left out."""
    known = {key: [each for each in own if each] for key, own in groups.items()}
    corrected = iter(holm(each for own in known.values() for each in own))
    return {key: [next(corrected) for _ in own] for key, own in known.items()}


def tested(differences: Iterable[Difference]) -> int:
    """How many tests a correction is for."""
    return sum(not math.isnan(each.p) for each in differences)


def verdict(differences: Iterable[Difference], wanted: int) -> str:
    """Whether differences have the wanted sign: all, some, or none, among those of several runs."""
    differences = list(differences)
    if not differences:
        return NOTHING
    signs = {difference.sign for difference in differences if not difference.single}
    if not signs:
        return "undecided (one run)"
    if signs == {0}:
        return "undecided"
    if signs == {wanted}:
        return "agrees"
    return "in part" if wanted in signs else "disagrees"


def seeds_needed(difference: Difference, value: float, power: float = 0.8) -> int | None:
    """Seeds with which `value` would be seen with `power` at the spread of `difference`; None where that is unknown."""
    if math.isnan(difference.error) or not difference.error:
        return None
    ratio = difference.error * math.sqrt(min(difference.runs)) / value
    shares, sides = (1 - LEVEL / 2, power), 1 if difference.paired else 2
    seeds: int = max(2, math.ceil((stats.norm.ppf(shares).sum() * ratio) ** 2))  # Student's quantiles are never less
    while seeds < (stats.t.ppf(shares, sides * (seeds - 1)).sum() * ratio) ** 2:
        seeds += 1
    return seeds


def shared_views(runs: pd.DataFrame) -> str:
    """Says of which lengths all runs had the same views, so that seeds differ in the first weights alone."""
    if "seed" not in runs:
        return ""
    counts = runs.assign(views=views_of(runs)).groupby("epochs")[["seed", "views"]].nunique()
    shared = counts.index[(counts["seed"] > 1) & (counts["views"] == 1)]
    if shared.empty:
        return ""
    lengths = " and ".join(map("{:,.0f}".format, shared))
    which = "All these runs" if len(shared) == len(counts) else f"All runs of {lengths} epochs"
    return f"{which} share one seed of views: their spread is that of the first weights alone."


def views_of(runs: pd.DataFrame) -> pd.Series:
    """The seed of order and views of each run, which is its seed where none is named."""
    return runs["view_seed"].astype(float).fillna(runs["seed"]) if "view_seed" in runs else runs["seed"]


def in_words(difference: Difference) -> str:
    """A difference as part of a sentence: value, interval, runs and corrected p."""
    text = columns(difference)
    if math.isnan(difference.p):
        return f"{text['difference']} ({text['95 % interval'] or 'runs without spread'}: noise unknown)"
    sure = f"p {p_in_words(difference.corrected)} after correction"
    return f"{text['difference']} (95\N{NO-BREAK SPACE}% {text['95 % interval']}, n = {text['n']}, {sure})"


def columns(difference: Difference | None) -> dict[str, str]:
    """A difference as columns of a table to print, named by `COLUMNS`; what is not known is empty."""
    if difference is None:
        return dict.fromkeys(COLUMNS, "")
    first, second = difference.runs
    n = f"{first} pairs" if difference.paired else str(first) if first == second else f"{first} and {second}"
    interval = f"{_scaled(difference, difference.low)} to {_scaled(difference, difference.high)}"
    sure = (interval, p_in_words(difference.corrected).removeprefix("= "))
    if math.isnan(difference.p):
        sure = ("one run" if difference.single else "", "")
    return dict(zip(COLUMNS, (n, value_of(difference), *sure), strict=True))


def value_of(difference: Difference) -> str:
    """Its value: shares in points."""
    return f"{_scaled(difference, difference.value)} {'points' if _is_share(difference) else 'of loss'}"


def p_in_words(value: float) -> str:
    """A p-value with its sign of relation, as in "= .012" or "< .001"."""
    return "< .001" if value < 0.001 else f"= {value:.{2 if value >= 0.0995 else 3}f}".replace("0.", ".")


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _scaled(difference: Difference, value: float) -> str:
    return signed(100 * value) if _is_share(difference) else signed(value, 3)


def _is_share(difference: Difference) -> bool:
    return difference.metric.rpartition("_")[-1] in _IN_POINTS

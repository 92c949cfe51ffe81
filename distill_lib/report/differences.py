"""Differences between groups of runs: what they are, how sure they are, and how pages word them.

Runs of two groups that share seed and views are compared in pairs, others by Welch's test; what a page compares is
corrected for the number of comparisons by Holm's method. Single runs have no spread, and decide nothing.

References:
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05
"""A corrected p-value below this one is called seen."""
COLUMNS = ("n", "difference", "95 % interval", "p, corrected")
_NO_SPREAD = 1e-9  # of accuracies or losses: less is rounding


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much `first` lies above `second`.

    Attributes:
        first, second: what is compared.
        epochs: length of the schedule, of `first` where they differ.
        value: difference of the means; of pairs, over these alone.
        error: its standard error; this and the next three are NaN where a side has one run, or runs have no spread.
        low, high: ends of its 95 % interval, from Student's t.
        p: two-sided, of the paired test or of Welch's.
        corrected: p after `holm`; NaN before.
        runs: runs of either side that took part.
        paired: whether these are pairs with common seed and views.
        metric: column of the records.
    """

    first: str
    second: str
    epochs: float
    value: float
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    corrected: float = math.nan
    runs: tuple[int, int] = (1, 1)
    paired: bool = False
    metric: str = "test_top1"

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
    """Compares two groups of runs; None where one is empty.

    At least two pairs of runs with common seed and views are compared as pairs, and the runs without a partner are left
    out. With fewer, all runs are compared by Welch's test.

    Args:
        first: rows of `records.read`, each seed once.
        second: likewise.
        names: what the groups are called.
        metric: a column that both have.
    """
    a, b = (_by_chance(group, metric) for group in (first, second))
    if a.empty or b.empty:
        return None
    common = a.index.intersection(b.index)
    paired = len(common) > 1
    if paired:
        a, b = a[common], b[common]
    about: dict[str, Any] = {
        "first": names[0],
        "second": names[1],
        "metric": metric,
        "epochs": float(first["epochs"].iloc[0]),
    }
    known = Difference(**about, value=float(a.mean() - b.mean()), runs=(len(a), len(b)), paired=paired)
    if paired:
        return _tested(known, [a - b], lambda: stats.ttest_rel(a, b))
    return _tested(known, [a, b], lambda: stats.ttest_ind(a, b, equal_var=False))


def against(runs: pd.DataFrame, value: float, names: tuple[str, str]) -> Difference:
    """Compares the test accuracy of runs with that of one given network, a share, which is taken as it is."""
    above = runs["test_top1"] - value
    about: dict[str, Any] = {"first": names[0], "second": names[1], "epochs": float(runs["epochs"].iloc[0])}
    known = Difference(**about, value=float(above.mean()), runs=(len(above), len(above)))
    return _tested(known, [above], lambda: stats.ttest_1samp(above, 0.0))


def at_every_length(runs: pd.DataFrame, first: str, second: str, metric: str = "test_top1") -> list[Difference]:
    """Compares two policies at every length of schedule that has both, the shortest first."""
    names = (first, second)
    sides = ([group[group["policy"] == policy] for policy in names] for _, group in runs.groupby("epochs"))
    return [each for one, other in sides if (each := compare(one, other, names, metric))]


def holm(differences: Iterable[Difference]) -> list[Difference]:
    """Fills in the corrected p-values of all that a page compares; what has none is no test, and does not count."""
    every = list(differences)
    known = (place for place, each in enumerate(every) if not math.isnan(each.p))
    order, largest = sorted(known, key=lambda place: every[place].p), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * every[place].p))
        every[place] = dataclasses.replace(every[place], corrected=largest)
    return every


def negated(difference: Difference) -> Difference:
    """The same difference the other way round: `second` minus `first`."""
    return dataclasses.replace(
        difference,
        first=difference.second,
        second=difference.first,
        runs=difference.runs[::-1],
        value=-difference.value,
        low=-difference.high,
        high=-difference.low,
    )


def tested(differences: Iterable[Difference]) -> int:
    """How many tests a correction is for."""
    return sum(not math.isnan(each.p) for each in differences)


def verdict(differences: Iterable[Difference], wanted: int) -> str:
    """Whether differences have the wanted sign: all, some, or none, among those of several runs."""
    signs = {difference.sign for difference in differences if not difference.single}
    if not signs:
        return "undecided (one run)"
    if signs == {0}:
        return "undecided"
    if signs == {wanted}:
        return "agrees"
    return "in part" if wanted in signs else "disagrees"


def seeds_needed(difference: Difference, value: float, power: float = 0.8) -> int | None:
    """Seeds of either side with which a difference of `value` would be seen, of one comparison at the level of 5 %.

    Args:
        difference: tells the spread, of its pairs or of its two sides.
        value: in the unit of its metric.
        power: how often it is to be seen.

    Returns:
        At least 2; None where the spread is not known.
    """
    if math.isnan(difference.error) or not difference.error:
        return None
    ratio = difference.error * math.sqrt(min(difference.runs)) / value
    shares = (1 - LEVEL / 2, power)
    seeds: int = max(2, math.ceil((stats.norm.ppf(shares).sum() * ratio) ** 2))  # Student's quantiles are never less
    sides = 1 if difference.paired else 2
    while seeds < (stats.t.ppf(shares, sides * (seeds - 1)).sum() * ratio) ** 2:
        seeds += 1
    return seeds


def shared_views(runs: pd.DataFrame) -> str:
    """Says of which lengths all runs had the same views, so that seeds differ in the first weights alone."""
    groups = {} if "seed" not in runs else dict(list(runs.groupby("epochs")))
    several = {epochs: group for epochs, group in groups.items() if group["seed"].nunique() > 1}
    shared = [f"{epochs:,.0f}" for epochs, group in several.items() if views_of(group).nunique() == 1]
    if not shared:
        return ""
    which = "All these runs" if len(shared) == len(groups) else f"All runs of {' and '.join(shared)} epochs"
    return f"{which} share one seed of views: their spread is that of the first weights alone."


def views_of(runs: pd.DataFrame) -> pd.Series:
    """The seed of order and views of each run, which is its seed where none is named."""
    return runs["view_seed"].astype(float).fillna(runs["seed"]) if "view_seed" in runs else runs["seed"]


def in_words(difference: Difference) -> str:
    """A difference as part of a sentence: value, interval, runs and corrected p."""
    if math.isnan(difference.p):
        return f"{value_of(difference)} ({'one run' if difference.single else 'runs without spread'}: noise unknown)"
    sure = f"p {p_in_words(difference.corrected)} after correction"
    rest = f"95\N{NO-BREAK SPACE}% {interval(difference)}, n = {_runs(difference)}, {sure}"
    return f"{value_of(difference)} ({rest})"


def columns(difference: Difference | None) -> dict[str, str]:
    """A difference as columns of a table to print, named by `COLUMNS`; what is not known is empty."""
    if difference is None:
        return dict.fromkeys(COLUMNS, "")
    sure = (interval(difference), p_in_words(difference.corrected).removeprefix("= "))
    if math.isnan(difference.p):
        sure = ("one run" if difference.single else "", "")
    return dict(zip(COLUMNS, (_runs(difference), value_of(difference), *sure), strict=True))


def value_of(difference: Difference) -> str:
    """Its value: accuracies in points."""
    return f"{_scaled(difference, difference.value)} {'points' if difference.metric == 'test_top1' else 'of loss'}"


def interval(difference: Difference) -> str:
    """Its 95 % interval, in the unit of `value_of`."""
    return f"{_scaled(difference, difference.low)} to {_scaled(difference, difference.high)}"


def p_in_words(value: float) -> str:
    """A p-value with its sign of relation, as in "= .012" or "< .001"."""
    return "< .001" if value < 0.001 else f"= {value:.{2 if value >= 0.0995 else 3}f}".replace("0.", ".")


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _scaled(difference: Difference, value: float) -> str:
    return signed(100 * value) if difference.metric == "test_top1" else signed(value, 3)


def _by_chance(runs: pd.DataFrame, metric: str) -> pd.Series:
    """Values of a metric by seed and views; a table without seeds, such as the paper's, has single runs."""
    if metric not in runs:
        return pd.Series(dtype=float)
    runs = runs.dropna(subset=[metric])
    if "seed" not in runs:
        return runs[metric].astype(float)
    return runs[metric].astype(float).set_axis(pd.MultiIndex.from_arrays([runs["seed"], views_of(runs)]))


def _tested(known: Difference, spreads: Sequence[pd.Series], test: Callable[[], Any]) -> Difference:
    """A difference with what SciPy's test tells of it; as it is where no spread is known."""
    if known.single or max(map(np.ptp, spreads)) < _NO_SPREAD:
        return known
    result, error = test(), math.hypot(*map(stats.sem, spreads))
    low, high = map(float, result.confidence_interval(0.95))
    return dataclasses.replace(known, error=error, low=low, high=high, p=float(result.pvalue))


def _runs(difference: Difference) -> str:
    first, second = difference.runs
    if difference.paired:
        return f"{first} pairs"
    return str(first) if first == second else f"{first} and {second}"

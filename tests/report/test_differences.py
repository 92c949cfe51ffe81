"""Differences and how sure they are: SciPy's tests, Holm's correction, and single runs that decide nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from distill_lib.report import differences
from distill_lib.report.differences import Difference

SHARES = st.integers(1_000, 9_999).map(lambda count: count / 10_000)
P_VALUES = st.lists(st.floats(0, 1), max_size=20)


def runs(accuracies: list[float], policy: str = "mix", seeds: range | None = None, **columns: object) -> pd.DataFrame:
    """Runs of one policy and length, a seed an accuracy."""
    seed = list(seeds or range(len(accuracies)))
    return pd.DataFrame({"policy": policy, "epochs": 10.0, "seed": seed, "test_top1": accuracies} | columns)


def compared(first: pd.DataFrame, second: pd.DataFrame) -> Difference:
    """The difference of two groups that both have runs."""
    difference = differences.compare(first, second, ("a", "b"))
    assert difference is not None
    return difference


def seen(difference: Difference) -> Difference:
    """As if it were all that a page compares."""
    return differences.holm([difference])[0]


@given(st.lists(st.tuples(SHARES, SHARES), min_size=2, max_size=8))
def test_runs_with_common_seeds_and_views_are_tested_as_scipy_tests_pairs(pairs: list[tuple[float, float]]) -> None:
    first, second = map(np.array, zip(*pairs, strict=True))
    assume(np.ptp(first - second) > 1e-4)
    difference = compared(runs(list(first)), runs(list(second)).iloc[::-1])
    test = stats.ttest_rel(first, second)
    assert difference.paired and difference.runs == (len(pairs), len(pairs))
    assert difference.value == pytest.approx(np.mean(first - second), abs=1e-12)
    assert difference.p == pytest.approx(test.pvalue, abs=1e-9)
    assert (difference.low, difference.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert difference.error == pytest.approx(stats.sem(first - second))


@given(st.lists(SHARES, min_size=2, max_size=6), st.lists(SHARES, min_size=2, max_size=6), st.booleans())
def test_runs_with_other_seeds_or_views_are_tested_as_welch_does(
    first: list[float], second: list[float], views: bool
) -> None:
    assume(np.ptp(first) > 1e-4 and np.ptp(second) > 1e-4)
    other = {"view_seed": 99} if views else {"seeds": range(50, 50 + len(second))}
    difference = compared(runs(first, view_seed=None), runs(second, **other))  # type: ignore[arg-type]
    test = stats.ttest_ind(first, second, equal_var=False)
    assert not difference.paired and difference.runs == (len(first), len(second))
    assert difference.p == pytest.approx(test.pvalue, abs=1e-9)
    assert (difference.low, difference.high) == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_runs_without_a_partner_are_left_out_of_pairs() -> None:
    """A third seed that only one side has changes nothing; a single common seed makes no pairs."""
    first, second = [0.80, 0.83, 0.99], [0.70, 0.71]
    assert compared(runs(first), runs(second)) == compared(runs(first[:2]), runs(second))
    assert not compared(runs(first), runs(second, seeds=range(2, 4))).paired


@given(P_VALUES)
def test_holm_never_lowers_a_p_value_and_keeps_their_order(values: list[float]) -> None:
    before = [Difference(first="a", second="b", epochs=1, value=0.1, p=p, runs=(3, 3)) for p in values]
    after = differences.holm(before)
    assert [each.p for each in after] == values
    assert all(each.p <= each.corrected <= 1 for each in after)
    ranked = sorted(after, key=lambda each: each.p)
    assert [each.corrected for each in ranked] == sorted(each.corrected for each in after)


def test_holm_multiplies_by_the_number_of_tests_that_are_left() -> None:
    """Of the example .01, .04, .03: three, two and one times; what has no p-value is no test."""
    before = [
        Difference(first="a", second="b", epochs=1, value=0.1, p=p, runs=(3, 3)) for p in (0.01, math.nan, 0.04, 0.03)
    ]
    after = [each.corrected for each in differences.holm(before)]
    assert [after[0], *after[2:]] == pytest.approx([0.03, 0.06, 0.06]) and math.isnan(after[1])
    assert differences.tested(before) == 3


@given(st.lists(SHARES, min_size=3, max_size=3), st.lists(SHARES, min_size=3, max_size=3), SHARES)
def test_one_collapsed_setting_changes_nothing_about_other_policies(
    first: list[float], second: list[float], low: float
) -> None:
    """However wide its runs lie apart: no spread is borrowed."""
    sound = pd.concat([runs(first, "mix"), runs(second, "same/ic")])
    collapsed = runs([0.1, low, 0.9], "labels")
    alone = differences.at_every_length(sound, "mix", "same/ic")
    beside = differences.at_every_length(pd.concat([sound, collapsed]), "mix", "same/ic")
    assert [repr(each) for each in alone] == [repr(each) for each in beside]


@given(SHARES, st.lists(SHARES, min_size=1, max_size=5))
def test_a_single_run_decides_nothing(alone: float, others: list[float]) -> None:
    """Whatever it is compared with, and whichever side it is on."""
    for pair in ((runs([alone]), runs(others)), (runs(others), runs([alone]))):
        difference = seen(compared(*pair))
        assert difference.single and difference.sign == 0 and math.isnan(difference.error)
        assert differences.verdict([difference], 1) == "undecided (one run)"
        assert "one run" in differences.in_words(difference)
        assert differences.columns(difference)["95 % interval"] == "one run"


@given(SHARES, st.integers(2, 5), SHARES)
def test_runs_without_any_spread_decide_nothing(value: float, seeds: int, other: float) -> None:
    """Equal accuracies are a matter of rounding: the noise is not known to be zero."""
    assert seen(compared(runs([value] * seeds), runs([other] * seeds))).sign == 0


@pytest.mark.parametrize(
    ("values", "p", "wanted", "said"),
    [
        ([0.1, 0.1], 0.001, 1, "agrees"),
        ([-0.1, -0.1], 0.001, 1, "disagrees"),
        ([0.1, -0.1], 0.001, 1, "in part"),
        ([0.1, -0.1], 0.2, 1, "undecided"),
        ([-0.1], 0.0499, -1, "agrees"),
        ([-0.1], 0.0501, -1, "undecided"),
    ],
)
def test_a_verdict_goes_by_corrected_p_and_sign(values: list[float], p: float, wanted: int, said: str) -> None:
    several = [Difference(first="a", second="b", epochs=1, value=v, corrected=p, runs=(3, 3)) for v in values]
    assert differences.verdict(several, wanted) == said
    single = dataclasses.replace(several[0], value=-several[0].value, runs=(1, 3))
    assert differences.verdict([*several, single], wanted) == said, "a single run has no say"


def test_words_and_columns_of_a_difference() -> None:
    known = Difference(first="a", second="b", epochs=1, value=0.0042, low=-0.001, high=0.0094, p=0.03, runs=(5, 5))
    pairs = dataclasses.replace(known, corrected=0.09, paired=True)
    minus, blank = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
    wanted = f"+0.4 points (95{blank}% {minus}0.1 to +0.9, n = 5 pairs, p = .090 after correction)"
    assert differences.in_words(pairs) == wanted
    apart = dataclasses.replace(known, corrected=0.0001, runs=(5, 3), metric="train_loss", value=-0.0042)
    values = ["5 and 3", f"{minus}0.004 of loss", f"{minus}0.001 to +0.009", "< .001"]
    assert list(differences.columns(apart).values()) == values


def test_a_network_that_is_given_has_no_noise_of_its_own() -> None:
    found = differences.against(runs([0.80, 0.81, 0.83]), 0.9, ("a", "the teacher"))
    test = stats.ttest_1samp([0.80, 0.81, 0.83], 0.9)
    assert found.p == pytest.approx(test.pvalue) and found.value == pytest.approx(2.44 / 3 - 0.9)
    assert found.low < found.value < found.high < 0


@given(st.floats(1e-4, 0.05), st.floats(1e-3, 0.1), st.booleans())
def test_seeds_that_are_needed_are_at_least_two_and_give_the_power(error: float, value: float, paired: bool) -> None:
    """One seed less would not do; a difference without spread gives no number."""
    known = Difference(first="a", second="b", epochs=1, value=0.1, error=error, runs=(3, 3), paired=paired)
    seeds = differences.seeds_needed(known, value)
    assert seeds is not None and seeds >= 2

    def enough(count: int) -> bool:
        freedom = count - 1 if paired else 2 * (count - 1)
        distance = value / (error * math.sqrt(3 / count))
        return distance >= stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)

    assert enough(seeds) and (seeds == 2 or not enough(seeds - 1))
    assert differences.seeds_needed(dataclasses.replace(known, error=math.nan), value) is None


def test_lengths_whose_seeds_share_their_views_are_named() -> None:
    own, shared = runs([0.8, 0.9], view_seed=None), runs([0.8, 0.9], view_seed=0).assign(epochs=3000.0)
    assert differences.shared_views(own) == "" and differences.shared_views(own.drop(columns="view_seed")) == ""
    assert differences.shared_views(pd.concat([own, shared])).startswith("All runs of 3,000 epochs share")
    assert differences.shared_views(shared).startswith("All these runs share")


def test_differences_need_both_policies_at_a_length() -> None:
    """A table without seeds, such as the paper's, has single runs."""
    frame = pd.DataFrame({"policy": ["mix", "same/ic", "mix"], "epochs": [10.0, 10.0, 20.0], "test_top1": [5, 6, 7]})
    (difference,) = differences.at_every_length(frame, "mix", "same/ic")
    assert difference.epochs == 10 and difference.value == -1 and difference.single
    assert differences.at_every_length(frame, "mix", "labels") == []

"""Sentences follow the data: made-up runs with known outcomes give known verdicts."""

from __future__ import annotations

from pathlib import Path

import made_up
import pandas as pd
import pytest

from distill_lib import records
from distill_lib.report import claims


def runs_with(values: dict[tuple[str, float], list[float]], losses: dict[str, float] | None = None) -> pd.DataFrame:
    """Runs of the study with given accuracies by (policy, epochs), a seed a value."""
    rows = [
        {"study": "fashion_short", "policy": policy, "epochs": epochs, "seed": seed, "test_top1": value}
        | {"train_images": None, "run_id": f"{policy}{epochs}{seed}", "train_loss": (losses or {}).get(policy, 1.0)}
        for (policy, epochs), accuracies in values.items()
        for seed, value in enumerate(accuracies)
    ]
    return pd.DataFrame(rows)


def verdict(runs: pd.DataFrame, words: str) -> str:
    """The verdict on the claim that has these words."""
    (found,) = [claim for claim in claims.all_claims(runs) if words in claim.paper]
    return found.verdict


SAME = {("same/ic", 10.0): [0.70, 0.71], ("same/ic", 99.0): [0.80, 0.81]}


@pytest.mark.parametrize(
    ("short", "long", "in_short", "in_long"),
    [
        ([0.60, 0.61], [0.85, 0.86], "agrees", "agrees"),
        ([0.75, 0.76], [0.75, 0.76], "disagrees", "disagrees"),
        ([0.70, 0.71], [0.80, 0.82], "undecided", "undecided"),
    ],
)
def test_function_matching_in_short_and_long_runs(short: list, long: list, in_short: str, in_long: str) -> None:
    runs = runs_with(SAME | {("mix", 10.0): short, ("mix", 99.0): long})
    assert verdict(runs, "trails") == in_short
    assert verdict(runs, "wins in long") == in_long


def test_a_fixed_teacher_is_judged_at_every_length() -> None:
    below, above = [0.60, 0.61], [0.90, 0.91]
    runs = runs_with(SAME | {("fix/cc", 10.0): below, ("fix/cc", 99.0): below}, {"fix/cc": 0.2})
    assert verdict(runs, "generalises worse") == "agrees"
    assert verdict(runs, "fits its training views better") == "agrees"
    runs = runs_with(SAME | {("fix/cc", 10.0): above, ("fix/cc", 99.0): below}, {"fix/cc": 2.0})
    assert verdict(runs, "generalises worse") == "in part"
    assert verdict(runs, "fits its training views better") == "disagrees"
    (told,) = [claim.seen for claim in claims.all_claims(runs) if "generalises worse" in claim.paper]
    assert "at 99 epochs" in told and "But" in told and "at 10 epochs" in told


def test_patience_says_which_lengths_each_policy_has() -> None:
    runs = runs_with(SAME | {("mix", 10.0): [0.60, 0.61], ("mix", 990.0): [0.85, 0.86]})
    (claim,) = [claim for claim in claims.all_claims(runs) if "longer schedule is better" in claim.paper]
    assert claim.verdict == "agrees"
    assert "From 10 epochs to 99 epochs: consistent teaching +10.0 points." in claim.seen
    assert "From 10 epochs to 990 epochs: function matching +25.0 points." in claim.seen


def test_a_fixed_teacher_falls_back_if_its_longest_runs_are_worse_than_the_second_longest() -> None:
    lengths = {("fix/cc", 10.0): [0.60, 0.61], ("fix/cc", 99.0): [0.80, 0.81]}
    assert verdict(runs_with(lengths), "fall back") == "disagrees"
    assert verdict(runs_with(lengths | {("fix/cc", 990.0): [0.70, 0.71]}), "fall back") == "agrees"


def test_single_runs_decide_nothing() -> None:
    """Neither that a student comes up to its teacher, nor that a training loss is within noise that nobody knows."""
    teacher = {"study": "fashion_teacher_full", "policy": "labels", "epochs": 24.0, "seed": 0, "run_id": "t"}
    single = runs_with({("same/ic", 10.0): [0.70], ("fix/cc", 10.0): [0.60]}, {"fix/cc": 0.2})
    frame = pd.concat([single, pd.DataFrame([teacher | {"test_top1": 0.9}])])
    assert verdict(frame, "comes up to its teacher") == verdict(frame, "generalises worse") == "undecided"
    (told,) = [claim.seen for claim in claims.all_claims(frame) if "fits its training views better" in claim.paper]
    assert "noise unknown: single runs" in told


def test_numbers_of_a_claim_are_those_of_the_runs() -> None:
    runs = runs_with(SAME | {("ind/ic", 99.0): [0.725, 0.735]})
    (told,) = [claim.seen for claim in claims.all_claims(runs) if "Independent" in claim.paper]
    assert "\N{MINUS SIGN}7.5 points" in told


def test_the_teacher_is_reached_or_not() -> None:
    teacher = {"study": "fashion_teacher_full", "policy": "labels", "epochs": 24.0, "seed": 0, "run_id": "t"}
    for accuracy, wanted in ((0.9, "disagrees"), (0.8, "agrees")):
        runs = pd.concat([runs_with(SAME), pd.DataFrame([teacher | {"test_top1": accuracy}])])
        assert verdict(runs, "comes up to its teacher") == wanted


def test_without_records_everything_says_so(tmp_path: Path) -> None:
    """Nothing fails, and no sentence claims anything."""
    runs = records.read(tmp_path)
    assert {claim.verdict for claim in claims.all_claims(runs)} == {claims.NO_RECORDS}
    assert "no" in claims.headline(runs) and "no runs" in claims.few_images(runs)
    assert claims.fresh_table(runs).empty and claims.chosen(runs).empty
    assert claims.NO_RECORDS in claims.about_teacher(runs) and claims.NO_RECORDS in claims.spread(runs)


def test_a_fresh_run_is_told_or_missed(tmp_path: Path) -> None:
    """With the command that makes it, where it is absent."""
    assert "nox -s study" in claims.fresh(records.read(tmp_path))
    made_up.write_everything(tmp_path)
    runs = records.read(tmp_path)
    assert "5 runs from 2001-02-01" in claims.fresh(runs)
    table = claims.fresh_table(runs)
    assert len(table) == 5 and (table["expected (%)"] != "").all()


def test_the_expectation_is_interpolated_in_the_logarithm_of_the_epochs() -> None:
    runs = runs_with({("mix", 10.0): [0.5], ("mix", 1000.0): [0.7]})
    fresh = runs.iloc[:1].assign(study="fashion_quick", epochs=100.0, test_top1=0.65, run_id="fresh")
    (row,) = claims.fresh_table(pd.concat([runs, fresh])).to_dict("records")
    assert (row["fresh run (%)"], row["expected (%)"], row["difference"]) == ("65.0", "60.0", "+5.0")


def test_what_the_grid_chose_stands_beside_what_is_used(tmp_path: Path) -> None:
    made_up.write_everything(tmp_path)
    table = claims.chosen(records.read(tmp_path))
    assert table["policy"].tolist() == ["consistent teaching", "function matching"]
    assert table["settings tried"].tolist() == [18, 18]
    blank = "\N{NO-BREAK SPACE}"
    assert all(text.count(f"{blank}/{blank}") == 2 for text in table["chosen"])

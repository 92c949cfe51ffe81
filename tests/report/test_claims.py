"""Sentences follow the data: made-up runs with known outcomes give known verdicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest

from distill_lib import experiments, records
from distill_lib.report import aggregate, claims


def runs_with(values: dict[tuple[str, float], float], losses: dict[str, float] | None = None) -> pd.DataFrame:
    """Runs of the study around given accuracies by (policy, epochs): six seeds with a little noise of their own."""
    rows = []
    for (policy, epochs), mean in values.items():
        noise = np.random.default_rng([len(policy), int(epochs)]).normal(0, 0.001, (6, 2))
        for seed, (shift, of_loss) in enumerate(noise):
            row = {"study": "fashion_short", "policy": policy, "epochs": epochs, "seed": seed, "train_images": None}
            row |= {"test_top1": mean + shift, "validation_top1": mean + shift, "run_id": f"{policy}{epochs}{seed}"}
            rows.append(row | {"train_loss": (losses or {}).get(policy, 1.0) + of_loss})
    return pd.DataFrame(rows)


def claim_of(runs: pd.DataFrame, words: str) -> claims.Claim:
    """The claim that has these words."""
    (found,) = [claim for claim in claims.all_claims(runs) if words in claim.paper]
    return found


def verdict(runs: pd.DataFrame, words: str) -> str:
    """The verdict on the claim that has these words."""
    return claim_of(runs, words).verdict


SAME = {("same/ic", 10.0): 0.70, ("same/ic", 99.0): 0.80}
TEACHER = {"study": "fashion_teacher_full", "policy": "labels", "epochs": 24.0, "seed": 0, "student": "bit_r11w24"}
TEACHER |= {"run_id": "t"}


@pytest.mark.parametrize(
    ("short", "long", "in_short", "in_long"),
    [
        (0.60, 0.85, "agrees", "agrees"),
        (0.75, 0.75, "disagrees", "disagrees"),
        (0.70, 0.80, "undecided", "undecided"),
    ],
)
def test_function_matching_in_short_and_long_runs(short: float, long: float, in_short: str, in_long: str) -> None:
    runs = runs_with(SAME | {("mix", 10.0): short, ("mix", 99.0): long})
    assert verdict(runs, "trails") == in_short
    assert verdict(runs, "wins in long") == in_long


def test_a_fixed_teacher_is_judged_at_every_length() -> None:
    runs = runs_with(SAME | {("fix/cc", 10.0): 0.6, ("fix/cc", 99.0): 0.6}, {"fix/cc": 0.2})
    assert verdict(runs, "generalises worse") == "agrees"
    assert verdict(runs, "fits its training views better") == "agrees"
    runs = runs_with(SAME | {("fix/cc", 10.0): 0.9, ("fix/cc", 99.0): 0.6}, {"fix/cc": 2.0})
    assert verdict(runs, "generalises worse") == "in part"
    assert verdict(runs, "fits its training views better") == "disagrees"


def test_independent_views_are_compared_with_the_same_crops() -> None:
    """Mild crops with mild crops: that other crops are better is no matter of independence."""
    runs = runs_with({("same/rc", 10.0): 0.6, ("ind/rc", 10.0): 0.65, ("same/ic", 10.0): 0.9})
    (case,) = claim_of(runs, "Independent").cases
    assert (case.first, case.second, case.sign) == ("ind/rc", "same/rc", 1)


def test_labels_have_their_own_best_settings_where_there_are_such_records() -> None:
    """Else, and at longer schedules, those of the study."""
    runs = runs_with(SAME | {("labels", 10.0): 0.6})
    assert [(case.first, case.second) for case in claim_of(runs, "Labels alone").cases] == [("same/ic", "labels")]
    tuned = [
        dataclasses.asdict(recipe) | {"run_id": f"own {number}", "study": recipe.study}
        for number, recipe in enumerate(experiments.plan("labels", "fashion", seeds=range(3)))
    ]
    accuracies = [0.9 if recipe["policy"] == "labels" else 0.8 for recipe in tuned]
    noise = np.random.default_rng(0).normal(0, 0.001, len(tuned))
    own = pd.DataFrame(tuned).assign(test_top1=accuracies + noise, validation_top1=accuracies + noise)
    longer = runs_with({("same/ic", 1000.0): 0.9, ("labels", 1000.0): 0.7})
    *tried, last = claim_of(pd.concat([runs, own, longer]), "Labels alone").cases
    assert (last.second, last.epochs, round(last.value, 1)) == ("labels", 1000, 0.2)
    cases = {case.second: case for case in tried}
    assert set(cases) == {"labels", "labels + mixup", "labels, SGD", "labels + mixup, SGD"}
    assert cases["labels"].value < -0.09


def test_patience_says_which_lengths_each_policy_has() -> None:
    claim = claim_of(runs_with(SAME | {("mix", 10.0): 0.6, ("mix", 990.0): 0.85}), "longer schedule is better")
    assert claim.verdict == "agrees"
    said = claims.table([claim])
    assert said["here"].tolist() == [
        "consistent teaching, 99 epochs, minus that of 10 epochs",
        "function matching, 990 epochs, minus that of 10 epochs",
    ]
    assert [text[:3] for text in said["difference"]] == ["+10", "+25"]


def test_a_fixed_teacher_falls_back_if_its_longest_runs_are_worse_than_the_second_longest() -> None:
    lengths = {("fix/cc", 10.0): 0.6, ("fix/cc", 99.0): 0.8}
    assert verdict(runs_with(lengths), "fall back") == "disagrees"
    assert verdict(runs_with(lengths | {("fix/cc", 990.0): 0.7}), "fall back") == "agrees"


def test_single_runs_decide_nothing() -> None:
    """Neither that a student falls short of its teacher, nor that another one is worse."""
    runs = runs_with({("same/ic", 10.0): 0.7, ("fix/cc", 10.0): 0.6}, {"fix/cc": 0.2})
    frame = pd.concat([runs[runs["seed"] == 0], pd.DataFrame([TEACHER | {"test_top1": 0.9}])])
    for words in ("comes up to its teacher", "generalises worse", "fits its training views better"):
        assert verdict(frame, words) == "undecided (one run)"
    assert set(claims.table(claims.all_claims(frame))["p, corrected"]) == {""}


def test_every_row_of_the_table_says_how_many_runs_and_how_sure() -> None:
    """A statement and its verdict stand once; p-values are corrected for the tests of the whole table."""
    every = claims.all_claims(runs_with(SAME | {("ind/ic", 10.0): 0.69, ("mix", 10.0): 0.7, ("mix", 99.0): 0.8}))
    shown = claims.table(every)
    assert shown.loc[shown["the paper"] != "", "the paper"].tolist() == [claim.paper for claim in every]
    assert shown.loc[shown["the paper"] != "", "verdict"].tolist() == [claim.verdict for claim in every]
    compared = shown[shown["here"] != ""]
    assert (compared[["n", "difference", "95 % interval", "p, corrected"]] != "").all(axis=None)
    cases = [case for claim in every for case in claim.cases]
    least = min(cases, key=lambda case: case.p)
    assert least.corrected == pytest.approx(len(cases) * least.p)


def test_the_headline_is_the_student_that_validation_images_choose() -> None:
    """Not the one that happens to be best on the test images; and it reads as the table does."""
    runs = runs_with({("same/ic", 10.0): 0.8, ("mix", 10.0): 0.7})
    runs["validation_top1"] = (runs["policy"] == "mix").astype(float)
    said = claims.headline(runs)
    assert "function matching, 10 epochs, 6 runs" in said
    assert aggregate.percent(runs.loc[runs["policy"] == "mix", "test_top1"].mean()) in said


def test_numbers_of_a_claim_are_those_of_the_runs() -> None:
    runs = runs_with(SAME | {("ind/ic", 99.0): 0.725})
    means = runs[runs["epochs"] == 99].groupby("policy")["test_top1"].mean()
    (case,) = claim_of(runs, "Independent").cases
    assert case.value == pytest.approx(means["ind/ic"] - means["same/ic"])


def test_the_teacher_is_reached_or_not() -> None:
    for accuracy, wanted in ((0.9, "disagrees"), (0.8, "undecided"), (0.7, "agrees")):
        runs = pd.concat([runs_with(SAME), pd.DataFrame([TEACHER | {"test_top1": accuracy}])])
        assert verdict(runs, "comes up to its teacher") == wanted


def test_without_records_everything_says_so(tmp_path: Path) -> None:
    """Nothing fails, and no sentence claims anything."""
    runs = records.read(tmp_path)
    assert {claim.verdict for claim in claims.all_claims(runs)} == {records.NOTHING}
    assert "no" in claims.headline(runs)
    assert claims.fresh_table(runs).empty and claims.chosen(runs).empty


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Made-up records of a whole study."""
    root = tmp_path_factory.mktemp("everything")
    made_up.write_everything(root)
    return records.read(root)


def test_a_fresh_run_is_told_or_missed(everything: pd.DataFrame, tmp_path: Path) -> None:
    """With the command that makes it, where it is absent."""
    assert "nox -s study" in claims.fresh(records.read(tmp_path))
    assert "5 runs; seeds 0; no device; 2001-02-01" in claims.fresh(everything)
    table = claims.fresh_table(everything)
    assert len(table) == 5 and (table["expected (%)"] != "").all()


def test_the_expectation_is_interpolated_in_the_logarithm_of_the_epochs() -> None:
    runs = runs_with({("mix", 10.0): 0.5, ("mix", 1000.0): 0.7})
    fresh = runs.iloc[:1].assign(study="fashion_quick", epochs=100.0, test_top1=0.65, run_id="fresh")
    (row,) = claims.fresh_table(pd.concat([runs, fresh])).to_dict("records")
    assert (row["fresh run (%)"], row["expected (%)"], row["difference"]) == ("65.0", "60.0", "+5.0")


def test_what_the_grid_chose_stands_beside_what_is_used(everything: pd.DataFrame) -> None:
    table = claims.chosen(everything)
    assert table["policy"].tolist() == ["consistent teaching", "function matching"]
    assert table["settings tried"].tolist() == [18, 18]
    blank = "\N{NO-BREAK SPACE}"
    assert all(text.count(f"{blank}/{blank}") == 2 for text in table["chosen"])


def test_the_reason_of_a_verdict_counts_what_is_seen_and_where_the_rest_points() -> None:
    runs = runs_with(SAME | {("fix/cc", 10.0): 0.6, ("fix/cc", 99.0): 0.85})
    text = claims.reason(claim_of(runs, "generalises worse"))
    assert text.startswith("Seen in 1 of 2 comparisons. Seen to be otherwise: fixed teacher, central crop, 99 epochs")
    alike = claim_of(runs_with(SAME | {("fix/cc", 10.0): 0.7, ("fix/cc", 99.0): 0.8}), "generalises worse")
    text = claims.reason(alike)
    assert text.startswith("Seen in 0 of 2 comparisons. Undecided: 2, of which")
    toward, alone = (
        sum(flags) for flags in zip(*((case.value < 0, case.p < 0.05) for case in alike.cases), strict=True)
    )
    assert f"of which {toward} with the paper's sign and {alone} with *p* below .05 before" in text


def test_the_reason_of_a_single_comparison_is_its_numbers() -> None:
    text = claims.reason(claim_of(runs_with(SAME | {("mix", 10.0): 0.6, ("mix", 99.0): 0.85}), "wins in long"))
    assert text.startswith("Function matching, 99 epochs, minus consistent teaching: +") and "n = 6 pairs" in text
    assert claims.reason(claim_of(runs_with(SAME), "wins in long")) == ""


def test_single_runs_are_no_reason() -> None:
    runs = runs_with(SAME | {("mix", 99.0): 0.85})
    lonely = runs[(runs["policy"] != "mix") | (runs["seed"] == 0)]
    assert claims.reason(claim_of(lonely, "wins in long")) == "Each comparison has a side of one run."


def test_the_tally_counts_verdicts() -> None:
    stated = claims.all_claims(runs_with(SAME | {("mix", 10.0): 0.6, ("mix", 99.0): 0.85}))
    assert claims.tally(stated) == "no records yet: 6, agrees: 3"

"""What records say of an experiment: the right ones are found, validation chooses, and noise is called noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from distill_lib import experiments
from distill_lib.recipes import Recipe
from distill_lib.report import comparisons


def row(recipe: Recipe, top1: float, validation: float | None = None) -> dict:
    """A made-up row of `records.read`."""
    about = {"run_id": f"{hash((recipe, top1)):x}", "study": recipe.study, "teacher_sha256": "abc"}
    result = {"test_top1": top1, "validation_top1": validation or top1, "test_agreement": top1}
    return about | dataclasses.asdict(recipe) | result


def noise(seed: int, shift: float) -> float:
    """A small number of either sign that no other setting has for this seed."""
    return float(np.random.default_rng([seed, round(1e4 * (shift + 1))]).normal(0, 0.0005))


def runs(shifts: dict[str, float], spread: float = 0.001, name: str = "ablations") -> pd.DataFrame:
    """Three seeds of an experiment's settings that are named, around 80 % plus a shift."""
    rows = []
    for setting in experiments.settings(name, "fashion"):
        if setting.name in shifts:
            (recipe,) = experiments.recipes_of(setting, "fashion")
            seeds = [dataclasses.replace(recipe, seed=seed, view_seed=0) for seed in range(3)]
            near = [spread / 0.0005 * noise(one.seed, shifts[setting.name]) for one in seeds]
            rows += [row(one, 0.8 + shifts[setting.name] + shift) for one, shift in zip(seeds, near, strict=True)]
    return pd.DataFrame(rows)


def test_records_belong_to_the_setting_whose_recipe_they_repeat() -> None:
    """Whatever their seed, and none to two settings; those without records say so."""
    frame = runs({"function matching": 0.0, "lambda folded": 0.01})
    found = comparisons.of_experiment(frame, "ablations")
    assert list(found["setting"]) == ["function matching"] * 3 + ["lambda folded"] * 3
    table = comparisons.table(frame, "ablations").set_index("setting")
    assert table.loc["lambda folded", "n"] == "3" and "81.0" in table.loc["lambda folded", "test top-1 (%)"]
    assert table.loc["squared distance", "test top-1 (%)"] == "no records yet"
    assert comparisons.of_experiment(frame.iloc[:0], "ablations").empty


def test_validation_images_choose_among_what_was_tried() -> None:
    """The setting that is best on the test images is not shown if another is better on validation images."""
    tried = [recipe for recipe in experiments.plan("optimizers", "fashion") if recipe.optimizer == "muon"]
    scores = zip(tried, (0.80, 0.90, 0.70, 0.60), (0.75, 0.70, 0.60, 0.70), strict=True)
    found = comparisons.of_experiment(pd.DataFrame([row(*one) for one in scores]), "optimizers")
    assert list(found["test_top1"]) == [0.80] and list(found["tried"]) == [4]


def test_a_setting_that_continues_a_run_is_found_whatever_it_continues() -> None:
    planned = experiments.plan("initialization", "fashion", start="run:fashion_compare/abc")
    found = comparisons.of_experiment(pd.DataFrame([row(recipe, 0.8) for recipe in planned]), "initialization")
    assert list(found["setting"]) == [setting.name for setting in experiments.settings("initialization", "fashion")]


def verdicts(frame: pd.DataFrame, name: str) -> dict[str, str]:
    """What is said of each comparison of an experiment."""
    table = comparisons.verdicts(comparisons.compared(frame, name), name)
    return dict(zip(table["here"], table["verdict"], strict=True))


@pytest.mark.parametrize(("shift", "word"), [(0.02, "better"), (-0.02, "worse")])
def test_what_the_paper_leaves_open_is_better_or_worse_or_undecided(shift: float, word: str) -> None:
    """Two points at a spread of a tenth are seen, at a spread of five they are noise."""
    shifts, pair = {"function matching": 0.0, "lambda folded": shift}, "lambda folded minus function matching"
    assert verdicts(runs(shifts), "ablations")[pair] == word
    assert verdicts(runs(shifts, spread=0.05), "ablations")[pair] == "undecided"
    assert set(verdicts(runs({}), "ablations").values()) == {"no records yet"}


def test_single_runs_decide_nothing() -> None:
    """Their noise is not known, so they are neither better nor worse."""
    single = runs({"function matching": 0.0, "lambda folded": 0.1})
    said = verdicts(single[single["seed"] == 0], "ablations")
    assert said["lambda folded minus function matching"] == "undecided (one run)"


def test_a_verdict_is_the_sign_of_a_difference_that_is_seen() -> None:
    """The claim is that the first setting of a pair is better; of a further pair it says nothing."""
    settings = experiments.settings("optimizers", "fashion")
    rows = [
        row(
            dataclasses.replace(experiments.recipes_of(setting, "fashion")[0], seed=seed),
            0.8 + shift + noise(seed, shift),
        )
        for setting, shift in zip(settings, (0.0, 0.03, 0.03, -0.03, 0.03), strict=True)
        for seed in range(3)
    ]
    told = [f"{name} minus Adam" for name in ("Shampoo", "SOAP", "Muon", "Schedule-free AdamW")]
    assert verdicts(pd.DataFrame(rows), "optimizers") == dict(
        zip(told, ("agrees", "better", "worse", "better"), strict=True)
    )
    below = pd.DataFrame(rows).assign(test_top1=lambda table: 1 - table["test_top1"])
    assert verdicts(below, "optimizers") == dict(zip(told, ("disagrees", "worse", "better", "worse"), strict=True))
    assert set(verdicts(runs({}), "optimizers").values()) == {"no records yet"}


def test_a_setting_is_compared_with_the_one_that_it_changes() -> None:
    """What T squared does at a temperature of 5 is no matter of the temperature."""
    warm, plain = "temperature 5", "temperature 5, without T\N{SUPERSCRIPT TWO}"
    said = verdicts(runs({"function matching": 0.0, warm: -0.03, plain: -0.0301}), "ablations")
    assert said[f"{warm} minus function matching"] == "worse" and said[f"{plain} minus {warm}"] == "undecided"


def test_p_values_are_corrected_for_their_experiment_and_by_nothing_else() -> None:
    """A setting that collapsed adds a test, and its spread is its own; what another experiment asks adds none."""
    sound = runs({"function matching": 0.0, "lambda folded": 0.005})
    wide = runs({"squared distance": -0.5}, spread=0.1)
    (alone,) = comparisons.compared(sound, "ablations")
    other = runs({"the usual teacher": 0.0, "of width 8": 0.1}, name="how_much_teacher")
    assert comparisons.compared(pd.concat([sound, other]), "ablations") == [alone]
    beside, _ = comparisons.compared(pd.concat([sound, wide]), "ablations")
    assert dataclasses.replace(beside, corrected=alone.corrected) == alone
    assert (alone.corrected, beside.corrected) == pytest.approx((alone.p, 2 * alone.p))


def test_the_overview_has_a_row_for_each_comparison_that_a_claim_is_about() -> None:
    shown = comparisons.overview(runs({}))
    assert len(shown) == sum(len(one.better) for one in experiments.EXPERIMENTS.values())
    assert set(shown["verdict"]) == {"no records yet"} and shown["the paper"].ne("").sum() == 9


def test_runs_of_the_own_preset_come_before_equal_ones_of_another() -> None:
    """The study's runs and those of a sweep have the same settings, but other views."""
    setting = experiments.settings("consistency", "fashion")[-1]
    (recipe,) = experiments.recipes_of(setting, "fashion")
    other = dataclasses.replace(recipe, variant="compare")
    rows = [row(dataclasses.replace(other, seed=seed), 0.7) for seed in range(3)]
    assert set(comparisons.of_experiment(pd.DataFrame(rows), "consistency")["test_top1"]) == {0.7}
    rows += [row(recipe, 0.8)]
    assert list(comparisons.of_experiment(pd.DataFrame(rows), "consistency")["test_top1"]) == [0.8]

"""The experiments on the embedded set: arms find their records, validation chooses settings, claims are judged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import made_up
import pandas as pd
import pytest

from distill_lib import analogue_results, recipes, records
from distill_lib.analogues import ANALOGUES, Analogue, Arm

NO_RUNS = pd.DataFrame(columns=["run_id", "study", "policy", "epochs", "seed", "test_top1"])
OPTIMISERS = next(analogue for analogue in ANALOGUES if analogue.name == "Optimisers")


def write(tmp_path: Path, top1: float, validation: float, seed: int = 0, **settings) -> None:
    """A made-up run of the study's preset with these settings and accuracies."""
    record = made_up.write_run(tmp_path, "medium", settings.pop("policy", "mix"), seed, **settings)
    record["result"] |= {"test_top1": top1, "validation_top1": validation}
    records.write(tmp_path / record["study"] / record["run_id"], record, [])


@pytest.mark.parametrize("analogue", ANALOGUES, ids=lambda analogue: analogue.name)
def test_every_experiment_says_where_there_are_no_records(analogue: Analogue) -> None:
    """Each arm has a row and each comparison a sentence; fields and arms that are named exist."""
    table, names = analogue_results.table(analogue, NO_RUNS), [arm.name for arm in analogue.arms]
    assert list(table["arm"]) == names and set(table["test top-1 (%)"]) == {"no records yet"}
    assert all("no records yet" in sentence for sentence in analogue_results.verdicts(analogue, NO_RUNS))
    assert {name for pair in analogue.better for name in pair} <= set(names)
    fields = {field.name for field in dataclasses.fields(recipes.Recipe)}
    for arm in analogue.arms:
        assert set(arm.settings) <= fields
        plain = {name: value for name, value in arm.settings.items() if not callable(value)}
        recipes.get("fashion", "medium", **plain, **({"teacher": "a.npz + b.npz"} if "ensemble" in plain else {}))


def test_arms_and_policies_are_kept_apart_and_the_claim_is_judged(tmp_path: Path) -> None:
    """Means over seeds; a setting of another kind is in no arm."""
    for seed in range(3):
        write(tmp_path, 0.80 + 0.001 * seed, 0.8, seed)
        write(tmp_path, 0.82 + 0.001 * seed, 0.8, seed, optimizer="shampoo", schedule="quadratic")
        write(tmp_path, 0.70, 0.7, seed, policy="same/ic")
        write(tmp_path, 0.10, 0.9, seed, mixup="example")
    runs = records.read(tmp_path)
    rows = analogue_results.table(OPTIMISERS, runs).set_index(["arm", "policy"])
    assert rows.loc[("Adam", "function matching"), "test top-1 (%)"].startswith("80.1")
    assert rows.loc[("Shampoo", "function matching"), "n"] == "3"
    (sentence,) = analogue_results.verdicts(OPTIMISERS, runs)
    assert "Shampoo minus Adam, at 100 epochs: +2.0 points; agrees." in sentence


def test_settings_are_chosen_by_validation_and_never_by_test(tmp_path: Path) -> None:
    """The better test accuracy belongs to the learning rate that validation refuses."""
    write(tmp_path, 0.70, 0.85, learning_rate=1e-2)
    write(tmp_path, 0.90, 0.80, learning_rate=1e-3)
    (result,) = analogue_results.results(Analogue("", "", "", (Arm("study"),)), records.read(tmp_path))
    assert result.runs["test_top1"].tolist() == [0.70] and result.tried == 2

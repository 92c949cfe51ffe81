"""Records are found by what decides a result, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import made_up
import pandas as pd

from distill_lib import recipes, records
from distill_lib.experiments import matching


def test_a_recipes_records_are_found_under_any_preset(tmp_path: Path) -> None:
    """Another variant and another seed are the same experiment, the same seed counts once; other settings do not."""
    for variant, policy, seed, settings in (
        ("quick", "mix", 0, {}),
        ("medium", "mix", 1, {}),
        ("medium", "mix", 0, {}),
        ("medium", "mix", 2, {"learning_rate": 1e-3}),
        ("medium", "same/ic", 3, {}),
        ("short", "mix", 4, {}),
        ("medium", "mix", 5, {"optimizer": "shampoo"}),
        ("medium", "mix", 6, {"dtype": "bfloat16"}),
    ):
        made_up.write_run(tmp_path, variant, policy, seed, **settings)
    found = matching.of_recipe(records.read(tmp_path), recipes.get("fashion", "medium"))
    assert sorted(found["seed"]) == [0, 1]


def test_what_an_old_record_does_not_hold_is_the_default(tmp_path: Path) -> None:
    """Fields that were added later do not hide earlier runs; what is asked for beyond the default does."""
    made_up.write_run(tmp_path, "medium", "mix", 0)
    runs = records.read(tmp_path).drop(columns=["optimizer", "mixup_folded"])
    assert len(matching.of_recipe(runs, recipes.get("fashion", "medium"))) == 1
    assert matching.of_recipe(runs, recipes.get("fashion", "medium", mixup_folded=True)).empty
    either = {"optimizer": lambda name: name in ("adam", "muon")}
    assert len(matching.of_recipe(runs, recipes.get("fashion", "medium"), **either)) == 1
    both = pd.concat([runs, records.read(tmp_path)])
    assert len(matching.of_recipe(both, recipes.get("fashion", "medium"))) == 1, "a seed counts once"


def test_temperature_and_teacher_do_not_count_without_a_teacher(tmp_path: Path) -> None:
    """They change nothing in a run on labels, whose seeds count once whatever they are."""
    made_up.write_run(tmp_path, "medium", "labels", 0, temperature=5, teacher="another")
    made_up.write_run(tmp_path, "medium", "labels", 0, temperature=2)
    assert len(matching.of_recipe(records.read(tmp_path), recipes.get("fashion", "medium", policy="labels"))) == 1


def test_no_records_are_no_match(tmp_path: Path) -> None:
    """Neither where there are none at all, nor where there are none of the data set."""
    assert matching.of_recipe(records.read(tmp_path), recipes.get("fashion", "medium")).empty
    made_up.write_run(tmp_path, "medium", "mix", 0)
    assert matching.of_recipe(records.read(tmp_path), recipes.get("pets", "fast")).empty

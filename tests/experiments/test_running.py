"""The runs of a notebook: trained where they are missing, and only read while the book is built."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from distill_lib import experiments, recipes, records
from distill_lib.experiments import running


def test_nothing_trains_while_the_book_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing is counted; the table of records is the answer all the same."""
    monkeypatch.setenv(running.READ_ONLY, "1")
    made_up.write_run(tmp_path, "medium", "mix", 0)
    plan = [recipes.get("fashion", "medium", policy="mix", seed=seed) for seed in (0, 1)]
    runs = experiments.run(plan, tmp_path)
    assert list(runs["seed"]) == [0] and "1 of these 2 students have records" in capsys.readouterr().out
    assert experiments.pretrained("fashion", results=tmp_path) == experiments.PRETRAINED


def test_records_of_a_plan_are_those_with_its_settings_and_seeds(tmp_path: Path) -> None:
    for policy, seed in (("mix", 0), ("mix", 1), ("mix", 2), ("same/ic", 1)):
        made_up.write_run(tmp_path, "medium", policy, seed)
    runs = records.read(tmp_path)
    plan = [recipes.get("fashion", "medium", policy="mix", seed=seed) for seed in (2, 0)]
    chosen = experiments.select(runs, plan)
    assert list(zip(chosen["policy"], chosen["seed"], strict=True)) == [("mix", 2), ("mix", 0)]
    assert experiments.select(runs.iloc[:0], plan).empty


@pytest.mark.slow
def test_a_plan_is_trained_once_and_mock_records_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = [recipes.get("fashion", "smoke", policy="mix", seed=seed) for seed in (0, 1)]
    runs = experiments.run(plan, tmp_path)
    assert set(runs["run_id"]) == set(experiments.run(plan, tmp_path)["run_id"]) and len(runs) == 2
    assert "mock data" in capsys.readouterr().out and records.read(tmp_path).empty


@pytest.mark.slow
def test_what_continues_a_run_of_the_plan_comes_after_it(tmp_path: Path) -> None:
    """That of its own policy and seed; one that has none is left out, and all are read under the same plan."""
    begun = [recipes.get("fashion", "smoke", policy="mix", seed=seed) for seed in (0, 1)]
    later = [
        recipes.get("fashion", "smoke", policy="mix", seed=seed, start=experiments.PRETRAINED, compression="int4")
        for seed in (1, 2)
    ]
    runs = experiments.run([*later, *begun], tmp_path)
    known = runs.set_index("run_id")
    (continued,) = runs["start"].dropna()
    assert len(runs) == 3 and known.loc[continued.rpartition("/")[2], "seed"] == 1
    assert list(experiments.select(runs, later)["compression"]) == ["int4"]

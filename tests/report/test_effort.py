"""What it takes to repeat an experiment: commands that work as they are printed, and times that records tell."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest

from distill_lib import experiments, recipes, records, values, views
from distill_lib.experiments import notebooks
from distill_lib.report import effort

ROOT = Path(__file__).parents[2]


def taught(setting: str, students_per_step: int, seconds: float) -> list[dict]:
    """Made-up rows of `records.read`: three students of a setting of `labels`, and what their sweep took."""
    (chosen,) = [one for one in experiments.settings("labels", "fashion") if one.name == setting]
    recipe, *_ = experiments.recipes_of(chosen, "fashion")
    about = {"device": "a clock", "students_per_step": students_per_step, "wall_seconds": seconds, "test_top1": 0.8}
    seeds = [dataclasses.replace(recipe, seed=seed, view_seed=0) for seed in effort.SEEDS]
    return [dataclasses.asdict(one) | about | {"run_id": f"{setting} {one.seed}"} for one in seeds]


@pytest.mark.parametrize(
    ("name", "dataset"), [(name, dataset) for name, one in experiments.EXPERIMENTS.items() for dataset in one.settings]
)
def test_a_command_names_true_parameters(name: str, dataset: str) -> None:
    words = re.findall(r'-p (\w+) ("[^"]*"|\S+)', effort.command(name, dataset))
    given = {parameter: values.parse_value(value.strip('"')) for parameter, value in words}
    assert set(given) <= set(notebooks.parameters_of(notebooks.find(name, ROOT)))
    assert given["dataset"] == dataset and (given.get("results") == "again") == (dataset == "fashion")
    if name == "consistency":  # the one whose notebook makes its own plan
        assert given["policies"] == list(views.POLICIES) and given["seeds"] == list(effort.SEEDS)
        assert recipes.get(dataset, given["variant"]) == recipes.get(dataset, "medium")


def test_students_of_a_sweep_share_its_time() -> None:
    """Three that took six minutes together, and three that took two minutes each."""
    runs = pd.DataFrame([*taught("consistent teaching", 3, 360.0), *taught("labels", 1, 120.0)])
    said = effort.how_to_repeat(runs, "labels")
    assert "took 12+ minutes on a clock, without 24 of them" in said  # of 5 settings with two learning rates each
    assert "no records yet that say" in effort.how_to_repeat(runs.iloc[:0], "labels")


def test_hours_that_are_not_known_are_not_zero() -> None:
    runs = pd.DataFrame(taught("labels", 1, 120.0))
    assert set(effort.table(runs, "a clock", "pets")["time"]) == {"unknown"}


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    """The records of the book."""
    return records.read(ROOT / "results")


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_the_heading_of_a_notebook_does_not_contradict_the_records(name: str, committed: pd.DataFrame) -> None:
    """Within a factor of two, once all settings have records; minutes depend on the machine."""
    heading = notebooks.find(name, ROOT).read_text(encoding="utf-8")
    stated = re.search(r"about (\d+) minutes on 2 CPU cores", heading)
    measured = re.search(r"took ([\d,]+) minutes", effort.how_to_repeat(committed, name))
    assert stated, "a reader of the notebook alone sees what it costs"
    if measured:
        assert 0.5 < int(stated[1]) / int(measured[1].replace(",", "")) < 2

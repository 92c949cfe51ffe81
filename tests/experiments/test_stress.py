"""Students under stress: which take part, what the record holds, and what is said of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from distill_lib import experiments, recipes, records
from distill_lib.errors import DistillError
from distill_lib.evaluation import corruptions
from distill_lib.experiments import running, stress
from distill_lib.report import stress as stress_report

RESULTS = Path(__file__).parents[2] / "results"
PLAN = [recipes.get("fashion", "medium", policy=policy, seed=seed) for policy in ("labels", "mix") for seed in (0, 1)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, records.Record]:
    """A results folder with the book's students of the preset `medium`, and the record of them on a few images."""
    folder = tmp_path_factory.mktemp("results")
    shutil.copytree(RESULTS / "fashion_medium", folder / "fashion_medium")
    own = experiments.select(records.read(folder), PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "SEVERITIES", (5,))
        patch.delenv(running.READ_ONLY, raising=False)
        record = experiments.stressed("robustness", own, PLAN[-1], corruptions.FAMILIES, folder, limit=100)
    assert record is not None
    return folder, record


def test_the_record_holds_every_network_whose_weights_are_at_hand(made: tuple[Path, records.Record]) -> None:
    """Clean first; the teacher agrees with itself, and is better than its students where nothing is corrupted."""
    folder, record = made
    assert json.loads((folder / "robustness.json").read_text()) == record == stress.read("robustness", folder)
    assert record["conditions"] == [["clean", 0], *([family, 5] for family in corruptions.FAMILIES)]
    assert [(each["policy"], each["seed"]) for each in record["students"]] == [("labels", 0), ("mix", 0)]
    assert record["images"] == 100 and not record["mock"] and record["commit"]
    assert set(record["teacher"]["agreement"]) == {1.0} and set(record["teacher"]["kl"]) == {0.0}
    for student in record["students"]:
        assert all(len(student[metric]) == 9 for metric in stress.METRICS)
        assert 0.6 < student["top1"][0] < record["teacher"]["top1"][0] and min(student["kl"]) > 0.05


def test_where_training_is_off_the_record_is_read(
    made: tuple[Path, records.Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(running.READ_ONLY, "1")
    assert experiments.stressed("robustness", pd.DataFrame(), PLAN[0], ["blur"], made[0]) == made[1]
    assert experiments.stressed("robustness", pd.DataFrame(), PLAN[0], ["blur"], tmp_path) is None
    (tmp_path / "robustness.json").write_text("{")
    with pytest.raises(DistillError, match=r"robustness\.json is damaged .*; delete it and run its notebook again"):
        stress.read("robustness", tmp_path)


def test_a_plan_without_weights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(running.READ_ONLY, raising=False)
    own = experiments.select(records.read(RESULTS), [recipe for recipe in PLAN if recipe.seed == 1])
    with pytest.raises(DistillError, match="no student's weights lie beside the records"):
        experiments.stressed("robustness", own, PLAN[0], ["blur"], tmp_path)


def test_an_unknown_stress_is_told_before_anything_is_judged() -> None:
    with pytest.raises(DistillError, match="unknown stress 'int88'. Did you mean 'int8'?"):
        experiments.stressed("quantize", pd.DataFrame(), PLAN[0], ["int4", "int88"])


def test_tables_set_clean_images_beside_the_mean_under_shift(made: tuple[Path, records.Record]) -> None:
    frame = stress_report.tidy(made[1])
    networks = stress_report.networks(frame)
    under = frame[(frame["policy"] == "mix") & (frame["family"] != "clean")]["top1"].mean()
    mix = networks[networks["policy"] == "mix"].iloc[0]
    assert mix["under_top1"] == pytest.approx(under) and mix["lost"] == pytest.approx(mix["top1"] - under)
    named = [stress_report.network(each.policy, each.epochs)["network"] for each in networks.itertuples()]
    assert named == ["the teacher", "labels", "function matching"]
    assert stress_report.provenance(made[1]).startswith("2 students on 100 test images; ")


def test_ranks_are_those_of_students_alone_with_an_interval() -> None:
    """Of which two that are the same order is 1, and of three students is said nothing."""
    rows = [{"policy": "mix", **dict.fromkeys(stress_report.COLUMNS.values(), float(place))} for place in range(9)]
    rows += [{"policy": stress.TEACHER, **dict.fromkeys(stress_report.COLUMNS.values(), -1.0)}]
    rows[0]["kl"] = 8.5  # closest becomes farthest
    table = stress_report.ranks(pd.DataFrame(rows))
    assert set(table["students"]) == {9} and len(table) == len(stress_report.RANKS)
    assert table["correlation"].iloc[1] == "+1.00" and table["correlation"].iloc[0] == "+0.40"
    low, high = (float(end.replace("\N{MINUS SIGN}", "-")) for end in table["95 % interval"].iloc[0].split(" to "))
    assert low < 0 < 0.4 < high < 1
    assert stress_report.ranks(pd.DataFrame(rows[:3])).empty


def test_rounding_is_judged_beside_the_teacher_as_it_is(
    made: tuple[Path, records.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many bits change nothing, two change everything; and the size is told for each."""
    monkeypatch.delenv(running.READ_ONLY, raising=False)
    own = experiments.select(records.read(made[0]), PLAN)
    record = experiments.stressed("quantize", own, PLAN[-1], ["int8", "int2"], made[0], limit=100)
    assert record == stress.read("quantize", made[0])
    assert record["conditions"] == [["clean", 0], ["int8", 8], ["int2", 2]]
    for each in (record["teacher"], *record["students"]):
        assert each["top1"][0] == pytest.approx(each["top1"][1], abs=0.011) and each["top1"][2] < each["top1"][0] - 0.1
        assert each["kl"][1] < each["kl"][0] + 0.01 < each["kl"][2]
        assert each["bytes"][0] > each["bytes"][1] > 4 * each["bytes"][2] - each["bytes"][0]


def test_what_a_form_costs_is_told_below_the_student_without_it() -> None:
    """In training beside the one of equal seed; afterwards within one network, in the record."""
    about = {"policy": "mix", "view_seed": 0, "epochs": 30.0, "start": "run:a/b"}
    rows = [
        about | {"seed": seed, "compression": form, "run_id": f"{form}{seed}", "test_top1": top1}
        for seed, form, top1 in ((0, "none", 0.8), (0, "2:4", 0.75), (1, "none", 0.9), (1, "2:4", 0.7))
    ]
    before = about | {"start": None, "seed": 0, "compression": None, "run_id": "before", "test_top1": 0.5}
    network = {"policy": "mix", "epochs": 30.0, **{metric: [0.0, 0.0] for metric in stress.METRICS}}
    judged = [network | {"run_id": f"none{seed}", "seed": seed, "top1": [0.8, 0.6]} for seed in (0, 1)]
    record = {"conditions": [["clean", 0], ["2:4", 17]], "teacher": network | {"run_id": "t"}, "students": judged}
    lost = stress_report.lost(pd.DataFrame([before, *rows]), record).set_index(["form", "way", "seed"])["test_top1"]
    assert lost["2:4", "in training"].to_dict() == pytest.approx({0: 0.05, 1: 0.2})
    assert lost["2:4", "afterwards"].to_dict() == pytest.approx({0: 0.2, 1: 0.2})
    assert (
        len(lost) == 4
        and stress_report.lost(pd.DataFrame(), record).empty
        and stress_report.lost(pd.DataFrame(rows), None).empty
    )

"""Means, spreads and differences, against plain formulas."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_lib import cli, records
from distill_lib.report import aggregate


def table(**columns: list) -> pd.DataFrame:
    """A small table of runs: one policy a row, the rest by default."""
    size = len(columns["policy"])
    base: dict[str, list] = {"study": ["fashion_short"] * size, "epochs": [10.0] * size, "train_images": [None] * size}
    frame = pd.DataFrame(base | columns)
    return frame.assign(run_id=[str(number) for number in range(size)])


def test_summary_is_count_mean_and_sample_deviation() -> None:
    frame = table(policy=["mix", "mix", "labels"], test_top1=[0.8, 0.9, 0.5])
    labels, mix = aggregate.summary(frame).to_dict("records")
    assert (labels["policy"], labels["n"], labels["mean"]) == ("labels", 1, 0.5) and math.isnan(labels["spread"])
    assert (
        mix["n"] == 2
        and mix["mean"] == pytest.approx(0.85)
        and mix["spread"] == pytest.approx(np.std([0.8, 0.9], ddof=1))
    )
    assert (mix["low"], mix["high"]) == (0.8, 0.9)


def test_summary_leaves_missing_values_out() -> None:
    frame = table(policy=["mix", "mix"], test_top1=[0.8, np.nan])
    assert aggregate.summary(frame)["n"].tolist() == [1]
    assert aggregate.summary(frame, "no_such_metric").empty


def test_the_best_student_is_the_one_that_validation_images_choose() -> None:
    frame = table(policy=["mix", "same/ic", "labels"], test_top1=[0.8, 0.9, 0.7], validation_top1=[0.9, 0.8, 0.95])
    assert aggregate.best(frame)["policy"].tolist() == ["mix"]
    assert aggregate.best(frame.iloc[2:]).empty and aggregate.best(frame.drop(columns="validation_top1")).empty


def test_students_of_a_sweep_share_its_time() -> None:
    frame = pd.DataFrame({"wall_seconds": [60.0, 60.0], "students_per_step": [3, None]})
    assert aggregate.own_seconds(frame).tolist() == [20.0, 60.0]
    assert aggregate.own_seconds(frame[["wall_seconds"]]).tolist() == [60.0, 60.0]


@given(st.integers(0, 9_999), st.integers(1, 5))
def test_a_mean_reads_alike_in_tables_and_sentences(count: int, seeds: int) -> None:
    """Also where it lies halfway between two numbers: 89.45 % is 89.5 % wherever it stands."""
    shares = pd.Series([count / 10_000] * seeds)
    table_says = aggregate.mean_spread(100 * shares).partition(aggregate.BLANK)[0]
    assert aggregate.percent(shares.mean()) == f"{table_says} %"
    assert aggregate.percent(0.8945) == "89.5 %"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up records of a whole study."""
    root = tmp_path_factory.mktemp("everything")
    made_up.write_everything(root)
    return root


def test_the_study_keeps_presets_all_images_and_the_usual_settings(everything: Path, tmp_path: Path) -> None:
    """Fresh runs, grids, parts of the data, other settings and a second run of a seed are never averaged in."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True)
    trial = made_up.write_run(tmp_path, "medium", "mix", 5, learning_rate=0.5)
    longer = made_up.write_run(tmp_path, "long", "mix", 0, epochs=1500)
    made_up.write_run(tmp_path, "medium", "mix", 1, view_seed=0)  # the same seed again, in a sweep
    runs = records.read(tmp_path)
    study = aggregate.study(runs)
    assert set(study["study"]) == {"fashion_short", "fashion_medium", "fashion_long"}
    assert study["train_images"].isna().all()
    assert trial["run_id"] not in set(study["run_id"]) and longer["run_id"] in set(study["run_id"])
    assert len(study) == len(made_up.POLICIES) * sum(made_up.LENGTHS.values()) + 1
    assert set(aggregate.study(runs, ["quick"])["study"]) == {"fashion_quick"}


def test_selection_puts_the_best_first_within_each_policy(everything: Path) -> None:
    found = aggregate.selection(aggregate.grid(records.read(everything)))
    assert list(found.groupby("policy", sort=False).groups) == ["same/ic", "mix"]
    for _, group in found.groupby("policy"):
        assert group["validation_top1"].is_monotonic_decreasing
    assert not any(name.startswith("test") for name in found)


def test_results_table_has_a_row_a_length_and_policy(everything: Path) -> None:
    shown = aggregate.results_table(aggregate.study(records.read(everything)))
    assert len(shown) == 3 * len(made_up.POLICIES)
    assert shown["n"].tolist() == [3] * 12 + [1] * 6
    assert all("±" in text for text in shown["test top-1 (%)"][:12])
    assert not any("±" in text for text in shown["test top-1 (%)"][12:])
    assert aggregate.results_table(pd.DataFrame()).empty


def test_sources_of_nothing() -> None:
    assert records.provenance(pd.DataFrame(), pd.DataFrame()) == "No runs."


def test_replayed_runs_stand_beside_the_live_ones_and_never_among_them(tmp_path: Path) -> None:
    """They are compared with the live runs of the same policy, length, seed and views, in pairs."""
    for seed in range(3):
        made_up.write_run(tmp_path, "medium", "mix", seed)
        for kept in (3, 10):
            made_up.write_run(tmp_path, "medium", "mix", seed, stored=kept)
    runs = records.read(tmp_path)
    runs["test_top1"] += np.random.default_rng(0).normal(0, 0.001, len(runs))
    live = aggregate.study(runs)
    assert len(runs) == 9 and len(live) == 3 and live["stored"].isna().all()
    assert len(aggregate.grid(runs.assign(study="fashion_grid"))) == 3
    table = aggregate.replayed(runs)
    assert table["kept"].tolist() == [3, 10] and table["n"].tolist() == [3, 3]
    assert table["bytes_per_view"].tolist() == [6, 20]
    found = table["difference"].iloc[0]
    assert found.value == pytest.approx(table["test_top1"].iloc[0] - live["test_top1"].mean())
    assert found.paired and found.runs == (3, 3) and found.corrected >= found.p
    alone = aggregate.replayed(runs[runs["stored"].notna()])
    assert alone["difference"].tolist() == [None, None]
    assert aggregate.replayed(runs.drop(columns="stored")).empty


def test_trials_are_no_part_of_replays_grids_and_the_teacher(tmp_path: Path) -> None:
    """Other settings are never averaged in, and a seed counts once."""
    for seed in range(3):
        made_up.write_run(tmp_path, "medium", "mix", seed, stored=3)
        made_up.write_run(tmp_path, "grid", "mix", seed)
    teacher = made_up.write_teacher(tmp_path)
    before = records.read(tmp_path)
    made_up.write_run(tmp_path, "medium", "mix", 0, stored=3, learning_rate=1e-4)
    made_up.write_run(tmp_path, "medium", "mix", 1, stored=3, view_seed=0)
    made_up.write_run(tmp_path, "grid", "mix", 0, batch_size=64)
    runs = records.read(tmp_path)
    assert len(runs) == len(before) + 3
    pd.testing.assert_frame_equal(aggregate.replayed(runs), aggregate.replayed(before))
    pd.testing.assert_frame_equal(
        aggregate.selection(aggregate.grid(runs)), aggregate.selection(aggregate.grid(before))
    )
    for other in ({"seed": 1}, {"epochs": 1.0}, {"student": "bit_r11w8"}):
        trial = runs[runs["run_id"] == teacher["run_id"]].assign(run_id="a", test_top1=0.1, **other)
        assert aggregate.teacher_top1(pd.concat([trial, runs])) == teacher["result"]["test_top1"], other


def test_a_record_that_is_older_than_a_field_was_run_at_its_default() -> None:
    """So runs from before and after a field was added are one study, and a run at another value is none of it."""
    frame = table(
        policy=["mix"] * 4,
        test_top1=[0.80, 0.81, 0.82, 0.10],
        optimizer=[None, "adam", None, "sgd"],
        mixup_folded=[np.nan, False, np.nan, False],
    )
    assert aggregate.study(frame)["test_top1"].tolist() == [0.80, 0.81, 0.82]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of the test's own."""
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    return tmp_path


def test_a_line_for_every_policy_and_where_it_comes_from(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made_up.write_run(results, "quick", policy, 0) for policy in ("labels", "mix")]
    made_up.write_run(results, "short", "mix", 0)
    assert cli.main(["records", "fashion_quick"]) == 0
    said = capsys.readouterr().out
    for run, name in zip(runs, ("labels", "function matching"), strict=True):
        (line,) = [line for line in said.splitlines() if f" {name} " in line]
        assert f" {100 * run['result']['test_top1']:.1f} " in line
        assert run["run_id"] in said
    assert said.splitlines()[-1].startswith("2 runs; seeds 0;")


def test_an_unknown_study_lists_those_that_there_are(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up.write_run(results, "quick", "mix", 0)
    assert cli.main(["records", "fashion_quik"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown study 'fashion_quik'. Did you mean 'fashion_quick'? Valid: fashion_quick."
    ]


def test_without_a_study_those_that_there_are_are_counted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["records"]) == 0
    assert capsys.readouterr().out == f"no runs in {results}\n"
    for variant, policy in (("quick", "labels"), ("quick", "mix"), ("short", "mix")):
        made_up.write_run(results, variant, policy, 0)
    assert cli.main(["records"]) == 0
    assert capsys.readouterr().out.splitlines() == ["fashion_quick  2 runs", "fashion_short  1 run"]

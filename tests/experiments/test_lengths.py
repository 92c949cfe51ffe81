"""What the length of a schedule decides: made-up runs with a known order, and known seconds."""

from __future__ import annotations

import json
from pathlib import Path

import lengths
import numpy as np
import pandas as pd
import pytest

from distill_lib.report import aggregate


def study(values: dict[tuple[str, float], float], seeds: int = 4) -> pd.DataFrame:
    """Runs around given accuracies by (policy, epochs), with a little noise of their own."""
    noise = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "policy": policy,
            "epochs": epochs,
            "seed": seed,
            "steps": 8 * epochs,
            "test_top1": top1 + noise.normal(0, 1e-3),
        }
        for (policy, epochs), top1 in values.items()
        for seed in range(seeds)
    )


CROSSING = {("same/ic", 10.0): 0.7, ("mix", 10.0): 0.6, ("same/ic", 99.0): 0.8, ("mix", 99.0): 0.9}


def test_a_pair_is_told_from_the_side_that_is_ahead_at_the_end() -> None:
    (ranking,) = lengths.rankings(study(CROSSING))
    early, late = ranking
    assert (late.first, late.second) == ("mix", "same/ic")
    assert early.sign == -1 and late.sign == 1 and early.low < early.value < early.high < 0
    (row,) = lengths.ranking_table([ranking]).to_dict("records")
    assert row["ahead at the end"] == "`mix`" and row["in this order from"] == "99 epochs"
    assert row["10 epochs"].endswith("(4),\N{NO-BREAK SPACE}seen") and row["99 epochs"].startswith("+10.")


def test_an_order_that_holds_from_the_start_is_counted() -> None:
    ranked = lengths.rankings(study(CROSSING | {("labels", 10.0): 0.5, ("labels", 99.0): 0.55}))
    assert sorted(lengths.ranking_table(ranked)["in this order from"]) == ["10 epochs", "10 epochs", "99 epochs"]


def test_single_runs_rank_and_decide_nothing() -> None:
    (ranking,) = lengths.rankings(study(CROSSING, seeds=1))
    assert lengths.ranking_table([ranking])["99 epochs"].item().endswith("\N{NO-BREAK SPACE}(1)")
    assert not any(case.sign for case in ranking)


def test_policies_that_share_one_length_make_no_ranking() -> None:
    assert lengths.rankings(study({("same/ic", 10.0): 0.7, ("mix", 10.0): 0.6, ("mix", 99.0): 0.9})) == []
    assert lengths.rankings(study(CROSSING).iloc[:0]) == []


def curves(values: dict[tuple[str, float], tuple[float, float]]) -> pd.DataFrame:
    """Curves of two points, half-way and at the end of the schedule, by (policy, epochs)."""
    return pd.DataFrame(
        {"run_id": f"{policy}{epochs}", "policy": policy, "epochs": epochs, "epoch": epoch, "validation_top1": top1}
        for (policy, epochs), pair in values.items()
        for epoch, top1 in zip((epochs / 2, epochs), pair, strict=True)
    )


def test_a_cut_run_is_read_between_its_rows() -> None:
    own = curves({("mix", 20.0): (0.4, 0.6)})
    assert aggregate.at(own, 20.0, 15.0) == pytest.approx(0.5)
    assert aggregate.at(own, 20.0, 21.0) is None and aggregate.at(own, 30.0, 15.0) is None


def test_cutting_is_told_apart_from_short_runs() -> None:
    """The order of the ends is that of the short runs, and not that of the long ones half-way."""
    own = curves({
        ("same/ic", 10.0): (0.5, 0.6), ("mix", 10.0): (0.5, 0.7), ("labels", 10.0): (0.5, 0.5),
        ("same/ic", 20.0): (0.5, 0.8), ("mix", 20.0): (0.4, 0.9), ("fix/cc", 40.0): (0.5, 0.6),
    })  # fmt: skip
    stages = lengths.cut(own, short=10)
    assert list(stages) == ["10 epochs", "20 epochs, cut at 10", "20 epochs"] and list(stages.index) == [
        "same/ic",
        "mix",
    ]
    assert stages.loc["mix"].tolist() == [0.7, 0.4, 0.9]
    assert lengths.cut(own, short=40).empty and lengths.cut(own.iloc[:0]).empty


def timing(seconds: float) -> dict[str, float]:
    return {"median": seconds, "low": seconds, "high": seconds, "rounds": 3}


def benchmarks(root: Path) -> None:
    """Records of both benchmarks: a live step of 4 seconds, of 2 for each of 8 students, and of 1 that is replayed."""
    about = {"device": "no device", "date": "2001-02-01", "commit": "made-up", "versions": {"jax": "0"}}
    alone = {"form": "teacher and one student", "students": 1, "step": timing(4.0)}
    sweeps = [
        {"form": form, "students": 8, "step": step}
        for form, step in (("a", timing(16.0)), ("b", ""), ("c", timing(20.0)))
    ]
    replayed = [{"case": "a", "speed-up": 4.0}, {"case": "b", "speed-up": 5.0}, {"case": "c"}]
    (root / "benchmarks").mkdir()
    for name, rows in (("sweep", [alone, *sweeps]), ("soft_labels", replayed)):
        (root / "benchmarks" / f"{name}.json").write_text(json.dumps(about | {"rows": rows}))


def test_the_seconds_of_a_step_are_those_of_the_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest form of a sweep, divided among its students, and the most careful share of replaying."""
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    assert lengths.seconds_a_step() == {}
    benchmarks(tmp_path)
    assert lengths.seconds_a_step() == {lengths.LIVE: 4.0, "8 students at once": 2.0, lengths.STORED: 1.0}


def test_fewer_seconds_a_step_are_more_epochs_in_the_same_seconds() -> None:
    runs = study({("mix", 10.0): 0.5, ("mix", 100.0): 0.6, ("same/ic", 10.0): 0.4})
    priced = lengths.in_seconds(runs, {lengths.LIVE: 4.0, lengths.STORED: 1.0}, "mix")
    assert priced["seconds"].tolist() == [320.0, 3200.0, 80.0, 800.0] and set(priced["n"]) == {4}


def test_without_runs_or_seconds_nothing_is_priced() -> None:
    runs = study({("mix", 10.0): 0.5, ("mix", 20.0): 0.6})
    assert lengths.in_seconds(runs.iloc[:0], {lengths.LIVE: 4.0}, "mix").empty
    assert lengths.in_seconds(runs, {}, "mix").empty

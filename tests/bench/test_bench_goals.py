"""Goals and numbers of the performance chapter: from records alone, and told where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_lib import records
from distill_lib.bench import goals, tables, timing
from distill_lib.records import NOTHING

STARTS = [
    {"kind": "start", "case": f"{name} run", "first step": timing.Timing(seconds, seconds, seconds, 3)}
    for name, seconds in (("first", 30.0), ("second", 12.0))
]
CLASS = {"form": "one program for each student", "students": 8}


def verdict(benchmark: str, results: Path, number: int = 0) -> tuple[str, str]:
    """What was measured of a goal of a benchmark, and the verdict."""
    row = goals.table(results, benchmark).iloc[number]
    return row["measured"], row["verdict"]


def test_goals_are_met_missed_or_not_run(tmp_path: Path) -> None:
    """By how much, or by which command; of several rows the worst counts."""
    assert set(goals.table(tmp_path)["measured"]) == {""}
    assert verdict("sweep", tmp_path) == ("", "not run: nox -s bench -- sweep")
    on_gpu = "not run: nox -s bench -- sweep --dataset flowers --variant fast --forms 1 --made-up on a GPU"
    assert verdict("sweep", tmp_path, 1) == ("", on_gpu)
    loops = [{"kind": "loop", "share at 50 ms": share} for share in (0.03, -0.01)]
    study = [{"case": "embedded, mix, 8 students", "form": "PyTorch, compiled", "times as long": 1.25}]
    crops = [{"cores": 1, "form": "plain", "ratio": ratio} for ratio in (1.6, None, 1.2)]
    tables_of = {"sweep": [CLASS | {"of as many runs": 0.5}], "loop": [*STARTS, *loops], "study": study, "input": crops}
    for name, rows in tables_of.items():
        timing.write(name, rows, tmp_path)
    assert verdict("sweep", tmp_path) == ("50 %", "met")
    assert verdict("loop", tmp_path) == ("3.0 %", "missed by 50%")
    assert verdict("loop", tmp_path, 1) == ("12", "missed by 20%")
    assert verdict("study", tmp_path) == ("1.25", "missed by 19%")
    assert verdict("study", tmp_path, 1)[1] == "not run: nox -s bench -- study"
    assert verdict("input", tmp_path) == ("1.2", "missed by 20%")


def test_only_a_record_from_an_accelerator_counts_for_its_goals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the benchmark `gpu` left, in a folder of its own, comes first."""
    timing.write("sweep", [CLASS | {"of as many runs": 0.3}], tmp_path)
    assert verdict("sweep", tmp_path, 1)[0] == ""
    environment = records.environment() | {"device": "made-up GPU"}
    monkeypatch.setattr(records, "environment", lambda: environment)
    timing.write("sweep", [CLASS | {"of as many runs": 0.35}], tmp_path)
    assert verdict("sweep", tmp_path, 1) == ("35 %", "missed by 4%")
    timing.write("sweep", [CLASS | {"of as many runs": 0.25}], tmp_path / "gpu")
    assert verdict("sweep", tmp_path, 1) == ("25 %", "met") and verdict("sweep", tmp_path)[0] == "35 %"


def test_numbers_are_read_from_records_or_missing(tmp_path: Path) -> None:
    """So that no sentence of the book fails; of a timing the median, of several rows the last."""
    assert tables.value("{:.0f} s", "loop", "first step", tmp_path, case="second run") == NOTHING
    timing.write("loop", [*STARTS, {"case": "other", "first step": None}], tmp_path)
    assert tables.value("{:.0f} s", "loop", "first step", tmp_path, case="second run") == "12 s"
    assert tables.value("{:.0f} s", "loop", "first step", tmp_path) == "12 s"
    assert tables.value("{:.0f} s", "loop", "first step", tmp_path, case="other") == NOTHING
    assert tables.rows("loop", tmp_path, case="first run") == STARTS[:1]
    assert "No run: drawn" in tables.provenance("step", results=tmp_path)


@pytest.mark.parametrize("goal", goals.GOALS)
def test_committed_records_hold_what_goals_are_about(goal: goals.Goal) -> None:
    """A goal whose row was renamed would be "not run" for ever."""
    content = timing.read(goal.benchmark)
    assert content is not None
    rows = [row for row in content["rows"] if goal.rows.items() <= row.items()]
    assert rows and all(goal.key in row for row in rows)

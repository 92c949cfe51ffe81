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


def test_goals_are_met_missed_or_not_run(tmp_path: Path) -> None:
    """By how much and why, or by which command; a record from a CPU says nothing of a goal for accelerators."""
    classes = [{"form": "one program for each student", "students": 8, "of as many runs": 0.5}]
    steps = [
        {"case": "made up", "form": "distill_lib", "step": "not run: no GPU", "goal": "share of peak at least 0.45"},
        {"case": "made up", "form": "torch", "step": None, "goal": "times as long at least 1.2", "times as long": 1.5},
    ]
    eight = [{"case": "embedded, mix, 8 students", "form": "PyTorch, compiled", "goal": None, "times as long": 1.25}]
    for name, rows in (("loop", STARTS), ("sweep", classes), ("step", steps), ("study", eight)):
        timing.write(name, rows, tmp_path)
    found = goals.table(tmp_path).set_index("goal")
    verdicts = [found.loc[goal.about, "verdict"] for goal in goals.GOALS]
    assert verdicts[0] == "met" and found.loc[goals.GOALS[0].about, "measured"] == "0.50"
    assert verdicts[1].startswith("not run: nox -s bench -- sweep --dataset flowers")
    assert verdicts[2] == "not run: nox -s bench -- loop"
    timing.write("loop", [*STARTS, *({"kind": "loop", "share at 50 ms": share} for share in (0.03, -0.01))], tmp_path)
    assert goals.table(tmp_path)["measured"][2] == "3.00%", "what noise makes negative is not what the loop adds"
    assert verdicts[4].startswith("missed by 20%: ")
    assert found.loc[goals.GOALS[5].about, "measured"] == "0.80" and verdicts[5] == "missed by 23%"
    assert verdicts[6].startswith("not run: nox -s bench -- study")
    assert list(found["verdict"])[-2:] == ["not run: no GPU: nox -s bench -- step", "met"]
    assert list(found["measured"])[-1] == "1.50 times as long"


def test_a_missed_step_says_how_near_to_the_peak_each_program_comes(tmp_path: Path) -> None:
    """So that a reader can tell a slow program from a slow machine."""
    ours = {"form": "distill_lib", "images/s": 900.0, "goal": "images/s at least 1000", "share of peak": 0.2}
    others = [
        {"form": form, "share of peak": share} for form, share in (("plain", 0.1), ("compiled", 0.3), ("x", None))
    ]
    elsewhere = {"case": "other", "form": "fast", "share of peak": 0.9}
    timing.write("step", [{"case": "made up"} | row for row in (ours, *others)] + [elsewhere], tmp_path)
    verdict = goals.table(tmp_path)["verdict"].iloc[-1]
    assert verdict == "missed by 10%: of the measured peak our step reaches 20%, the best of the others (compiled) 30%"


def test_a_record_from_an_accelerator_counts_for_its_goals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the time of one run, eight students may take 2.7 times as much."""
    environment = records.environment() | {"device": "made-up GPU"}
    monkeypatch.setattr(records, "environment", lambda: environment)
    share = {"form": "one program for each student", "students": 8, "of as many runs": 0.3}
    timing.write("sweep", [share], tmp_path)
    row = goals.table(tmp_path).set_index("goal").loc[goals.GOALS[1].about]
    assert row["measured"] == "2.40" and row["verdict"] == "met"
    timing.write("sweep", [share | {"of as many runs": 0.25}], tmp_path / "gpu")
    assert goals.table(tmp_path)["measured"][1] == "2.00"


def test_a_step_of_an_accelerator_takes_the_place_of_the_row_that_waits_for_it(tmp_path: Path) -> None:
    """The benchmark `gpu` has a folder of its own, so that the records of the CPU stay as they are."""
    waits = {"case": "made up", "form": "distill_lib", "dtype": "bfloat16", "goal": "share of peak at least 0.45"}
    timing.write("step", [waits | {"step": "not run: no accelerator here", "images/s": None}], tmp_path)
    assert goals.table(tmp_path)["verdict"].iloc[-1].startswith("not run")
    ran = {"step": timing.Timing(0.1, 0.1, 0.1, 5), "images/s": 2560.0, "share of peak": 0.5}
    timing.write("step", [waits | ran], tmp_path / "gpu")
    assert list(goals.table(tmp_path).iloc[-1])[2:] == ["0.50", "met"]


def test_facts_are_read_from_records_or_missing(tmp_path: Path) -> None:
    """The same names either way, so that no sentence of the book fails."""
    assert set(tables.facts(tmp_path).values()) == {NOTHING}
    timing.write("loop", STARTS, tmp_path)
    left = {"model": "bit_r11w8", "case": "without GroupNorm", "share": 0.4, "left on the table": 0.3}
    timing.write("profile", [left], tmp_path)
    found = tables.facts(tmp_path)
    assert found["start-second"] == "12 s" and found["norm-small"] == "40 %"
    assert found["left-small"] == "30 % (so it is worth writing)"
    assert tables.rows("loop", tmp_path, case="first run") == STARTS[:1]
    assert "No run: drawn" in tables.provenance("roofline", results=tmp_path)


def test_committed_records_hold_what_the_chapter_quotes() -> None:
    """A benchmark that was run leaves no sentence without its number."""
    found = tables.facts()
    for name, (benchmark, _, _) in tables.FACTS.items():
        assert timing.read(benchmark) is None or found[name] != NOTHING, name


def test_a_class_is_told_beside_pytorch_or_how_to_measure_it(tmp_path: Path) -> None:
    """Our time of theirs, for each policy that the record has."""
    assert "nox -s bench -- study --torch" in tables.about_classes(tmp_path)
    row = {"case": "embedded, mix, 8 students", "form": "PyTorch, compiled", "times as long": 1.6}
    timing.write("study", [row], tmp_path)
    timing.write("step", [row | {"case": "embedded, mix", "dtype": "float32", "times as long": 0.9}], tmp_path)
    assert "takes 0.62 times as long by mix." in tables.about_classes(tmp_path)
    assert tables.facts(tmp_path)["torch-mix"] == "0.90 times" and tables.facts(tmp_path)["torch-labels"] == NOTHING

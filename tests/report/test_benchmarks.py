"""Goals and numbers of the performance chapter: from records alone, and told where there are none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import timing
from distill_lib import records
from distill_lib.records import NOTHING
from distill_lib.report import benchmarks
from distill_lib.report.tables import html_table

PAGE = Path(__file__).parents[2] / "book" / "performance.md"
STARTS = [
    {"kind": "start", "case": f"{name} run", "first step": benchmarks.Timing(seconds, seconds, seconds, 3)}
    for name, seconds in (("first", 30.0), ("second", 12.0))
]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of the test's own."""
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    return tmp_path


def verdict(*goal: str, **options: Any) -> tuple[str, str]:
    """What was measured of a goal, and the verdict."""
    row = benchmarks.goal("", *goal, **options)
    return row["measured"], row["verdict"]


def test_goals_are_met_missed_or_not_run(results: Path) -> None:
    """By how much, or by which command; of several rows the worst counts, of a timing the median."""
    sweep: dict[str, Any] = {"at_most": 0.65, "form": "vmap"}
    assert verdict("sweep", "of as many runs", **sweep) == ("", "not run: nox -s bench -- sweep")
    on_gpu = verdict("sweep", "of as many runs", **sweep, on_gpu="--forms 1")
    assert on_gpu == ("", "not run: nox -s bench -- sweep --forms 1 on a GPU")
    timing.write("sweep", [{"form": "vmap", "of as many runs": share} for share in (0.4, 0.5, None)])
    assert verdict("sweep", "of as many runs", **sweep) == ("50 %", "met")
    assert verdict("sweep", "of as many runs", **sweep | {"form": "another"})[1].startswith("not run")
    timing.write("loop", STARTS)
    assert verdict("loop", "first step", at_most=10, case="second run") == ("12", "missed by 20%")
    timing.write("input", [{"cores": 1, "ratio": ratio} for ratio in (1.6, None, 1.2)])
    assert verdict("input", "ratio", at_least=1.5, cores=1) == ("1.2", "missed by 20%")
    row = benchmarks.goal("faster", "input", "ratio", at_least=1.2)
    assert row == {"goal": "faster", "wanted": "at least 1.2", "measured": "1.2", "verdict": "met"}


def test_only_a_record_from_an_accelerator_counts_for_its_goals(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the benchmark `gpu` left, in a folder of its own, comes first."""
    sweep: tuple[str, str] = ("sweep", "of as many runs")
    wanted: dict[str, Any] = {"at_most": 2.7 / 8}
    timing.write("sweep", [{"of as many runs": 0.3}])
    assert verdict(*sweep, on_gpu="--forms 1", **wanted)[0] == ""
    environment = records.environment() | {"device": "made-up GPU"}
    monkeypatch.setattr(records, "environment", lambda: environment)
    timing.write("sweep", [{"of as many runs": 0.35}])
    assert verdict(*sweep, on_gpu="--forms 1", **wanted) == ("35 %", "missed by 4%")
    timing.write("sweep", [{"of as many runs": 0.25}], results / "gpu")
    assert verdict(*sweep, on_gpu="--forms 1", **wanted) == ("25 %", "met")
    assert verdict(*sweep, **wanted)[0] == "35 %"


def test_numbers_are_read_from_records_or_missing(results: Path) -> None:
    """So that no sentence of the book fails; of a timing the median, of several rows the last."""
    assert benchmarks.value("{:.0f} s", "loop", "first step", case="second run") == NOTHING
    timing.write("loop", [*STARTS, {"case": "other", "first step": None}])
    assert benchmarks.value("{:.0f} s", "loop", "first step", case="second run") == "12 s"
    assert benchmarks.value("{:.0f} s", "loop", "first step") == "12 s"
    assert benchmarks.value("{:.0f} s", "loop", "first step", case="other") == NOTHING
    assert benchmarks.rows("loop", case="first run") == STARTS[:1]
    assert "No run: drawn" in benchmarks.provenance("step")


def test_committed_records_hold_what_the_goals_of_the_page_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """A goal whose row was renamed would be "not run" for ever."""
    asked: list[tuple[str, str]] = []

    def check(about: str, benchmark: str, key: str, **options: Any) -> dict[str, str]:
        values = {name: value for name, value in options.items() if name not in ("at_most", "at_least", "on_gpu")}
        rows = benchmarks.rows(benchmark, **values)
        assert rows and all(key in row for row in rows), about
        asked.append((benchmark, key))
        return {"goal": about}

    monkeypatch.setattr(benchmarks, "goal", check)
    (cell,) = re.findall(r"^sweep_of_8.*?(?=^```$)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    exec(cell, {"benchmarks": benchmarks, "pd": pd, "html_table": html_table, "large": "R152x2 to R50x1"})
    assert len(asked) == 12 and {name for name, _ in asked} == {"sweep", "loop", "study", "step", "input"}

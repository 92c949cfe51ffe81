"""Benchmarks: rounds in turn, medians, and a record of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_lib.bench import __main__ as command
from distill_lib.bench import folding, timing


def test_rounds_are_taken_in_turn_after_one_that_does_not_count() -> None:
    """So that a machine that slows down slows all alike, and compilation is in none."""
    calls: list[str] = []
    found = timing.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, calls=2)
    assert calls == list("ab") + list("aabb") * 3
    assert found["a"].rounds == 3 and 0 <= found["a"].low <= found["a"].median <= found["a"].high


def test_a_benchmark_leaves_a_record(tmp_path: Path) -> None:
    """Rows with all of their timings, and the machine; read back as they were."""
    rows = [{"model": "a", "step": timing.Timing(0.012, 0.01, 0.02, 5), "ratio": 1.234567, "images": 8}]
    path = timing.write("made_up", rows, tmp_path)
    assert {"device", "date", "commit", "versions"} <= json.loads(path.read_text()).keys()
    content = timing.read("made_up", tmp_path)
    assert content is not None and content["rows"] == rows
    assert "medians of 5 rounds" in timing.provenance(content)
    assert timing.read("never_run", tmp_path) is None
    assert timing.table(rows).splitlines()[1].split() == ["a", "12.0", "ms", "1.23", "8"]


def test_folding_is_measured_on_both_forms_of_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to rounding, and both are timed."""
    monkeypatch.setattr(folding, "CASES", (("bit_r11w8", 10, 2, 8, 1),))
    (row,) = folding.measure(["--rounds", "3"])
    assert row["relative error"] < 1e-4
    assert row["ratio"] == pytest.approx(row["as trained"].median / row["folded"].median)


def test_an_unknown_benchmark_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the valid ones, and an exit code."""
    assert command.main(["fodling"]) == 1
    assert "error: unknown benchmark 'fodling'" in capsys.readouterr().err

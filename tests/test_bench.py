"""Benchmarks: rounds in turn, medians, and a record of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distill_lib.bench import __main__ as command
from distill_lib.bench import folding, store, timing


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


def test_stored_answers_are_weighed_as_they_lie_on_disk() -> None:
    """Bytes of the files, the mass that is left out, and how far what is replayed lies from the answers."""
    logits = [np.random.default_rng(step).normal(0, 3, (8, 300)).astype(np.float32) for step in range(2)]
    whole, few = store._weighed("made up", logits, (300, 3))
    assert whole["rest of the mass"] == 0 and whole["KL to the live answer"] < 1e-5
    exponentials = np.sort(np.exp(np.concatenate(logits)), axis=-1)
    expected = (exponentials[:, :-3].sum(-1) / exponentials.sum(-1)).mean()
    assert few["rest of the mass"] == pytest.approx(expected, rel=1e-4) and few["KL to the live answer"] > 0.01
    assert 300 < whole["bytes a view"] < 2 * 300 + 100 and 14 < few["bytes a view"] < whole["bytes a view"] / 3


def test_an_unknown_benchmark_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the valid ones, and an exit code."""
    assert command.main(["fodling"]) == 1
    assert "error: unknown benchmark 'fodling'" in capsys.readouterr().err

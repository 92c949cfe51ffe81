"""Benchmarks: rounds in turn, medians, and a record of each."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from distill_lib.bench import __main__ as command
from distill_lib.bench import folding, loop, networks, profile, scaling, soft_labels, sweep, timing


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
    path.rename(path.with_name("renamed.json"))  # as a benchmark may be, after its record was made
    renamed = timing.read("renamed", tmp_path)
    assert renamed is not None and timing.provenance(renamed).startswith("Benchmark renamed:")
    assert timing.table(rows).splitlines()[1].split() == ["a", "12.0", "ms", "1.23", "8"]
    of_two_kinds = timing.table([{"form": "a", "ratio": 1.5}, {"form": "b", "images": 8}]).splitlines()
    assert of_two_kinds[0].split() == ["form", "ratio", "images"] and of_two_kinds[2].split() == ["b", "8"]


def test_folding_is_measured_on_both_forms_of_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to rounding, and both are timed."""
    monkeypatch.setitem(networks.SIZES, "bit_r11w24", (10, 2, 8, 1))
    (row,) = folding.measure(["--rounds", "3", "--models", "bit_r11w24"])
    assert (row["model"], row["images"], row["side"]) == ("bit_r11w24", 2, 8)
    assert row["relative error"] < 1e-4
    assert row["ratio"] == pytest.approx(row["as trained"].median / row["folded"].median)


def test_a_class_compiles_in_the_step_that_does_not_count(tmp_path: Path) -> None:
    """What the second step would compile would be timed."""
    options = argparse.Namespace(dataset="fashion", variant="smoke", students=2, made_up=False)
    for name, taught in sweep._classes(options, sweep.FORMS[:1], tmp_path).items():
        taught.run()
        compiled = taught.learn._cache_size()
        taught.run()
        assert taught.learn._cache_size() == compiled, name


def test_one_round_has_no_spread(capsys: pytest.CaptureFixture[str]) -> None:
    """Told before anything is measured."""
    with pytest.raises(SystemExit, match="2"):
        folding.measure(["--rounds", "1"])
    said = capsys.readouterr().err
    assert "python -m distill_lib.bench folding" in said and "at least 2 are needed, got 1" in said


def test_stored_answers_are_weighed_as_they_lie_on_disk() -> None:
    """Bytes of the files, the mass that is left out, and how far what is replayed lies from the answers."""
    logits = [np.random.default_rng(step).normal(0, 3, (8, 300)).astype(np.float32) for step in range(2)]
    whole, few = soft_labels._weighed("made up", logits, (300, 3))
    assert whole["rest of the mass"] == 0 and whole["KL to the live answer"] < 1e-5
    exponentials = np.sort(np.exp(np.concatenate(logits)), axis=-1)
    expected = (exponentials[:, :-3].sum(-1) / exponentials.sum(-1)).mean()
    assert few["rest of the mass"] == pytest.approx(expected, rel=1e-4) and few["KL to the live answer"] > 0.01
    assert 300 < whole["bytes a view"] < 2 * 300 + 100 and 14 < few["bytes a view"] < whole["bytes a view"] / 3


def test_an_unknown_benchmark_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the valid ones, and an exit code."""
    assert command.main(["fodling"]) == 1
    assert "error: unknown benchmark 'fodling'" in capsys.readouterr().err


def test_a_line_is_fitted_to_what_was_measured() -> None:
    """By least squares; R^2 is 1 on the line, and 0 where x explains nothing."""
    exact = scaling.fit([1, 2, 4], [5, 7, 11])
    assert (exact.intercept, exact.slope, exact.r2) == pytest.approx((3, 2, 1))
    assert scaling.fit([1, 2, 3], [1, 3, 1]).r2 == pytest.approx(0)
    assert scaling.fit([1, 2], [4, 4]).r2 == 1


def test_rows_of_an_axis_hold_its_line() -> None:
    """Pixels are fitted as their number; images a second are those of the median."""
    seconds = {side: timing.Timing(0.01 + 1e-5 * side**2, 0.0, 1.0, 3) for side in (20, 40)}
    first, last = scaling.rows_of("pixels", seconds, dict.fromkeys(seconds, 128))
    assert (first["intercept"], first["slope"]) == pytest.approx((0.01, 1e-5))
    assert last["images/s"] == pytest.approx(128 / 0.026) and first["R2"] == pytest.approx(1)


def test_the_loop_is_what_it_adds_to_its_compiled_calls() -> None:
    """Pairs of rounds, so that a slow round slows both; a share of the step, and of one of 50 ms."""
    found = loop.overhead([0.011, 0.021, 0.031], [0.010, 0.020, 0.030])
    assert found == pytest.approx({"overhead (s)": 0.001, "share": 0.05, "share at 50 ms": 0.02})
    assert loop.checkpoint_share(1, 99) == 0.01


def test_what_is_left_on_the_table_is_what_a_perfect_part_would_save() -> None:
    """Never less than nothing: a difference may be noise."""
    found = profile.left_on_the_table(whole=10, without=6, least=1)
    assert found == {"share": 0.4, "least (s)": 1, "left on the table": 0.3}
    assert profile.left_on_the_table(whole=10, without=10, least=1)["left on the table"] == 0


def test_operations_of_a_program_are_told_by_what_they_hold() -> None:
    """A fusion is what is inside it, whatever it is called."""
    program = """HloModule made_up
%inner (p: f32[2,2]) -> f32[2,2] {
  %p = f32[2,2]{1,0} parameter(0)
  ROOT %d = f32[2,2]{1,0} dot(%p, %p), lhs_contracting_dims={1}
}
%plus (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}
ENTRY %main (x: f32[2,2]) -> (f32[2,2], f32[]) {
  %x = f32[2,2]{1,0} parameter(0)
  %add_fusion.1 = f32[2,2]{1,0} fusion(%x), kind=kCustom, calls=%inner
  %r = f32[] reduce(%x, %zero), dimensions={0,1}, to_apply=%plus
  %t = f32[2,2]{1,0} transpose(%x), dimensions={1,0}
  ROOT %pair = (f32[2,2]{1,0}, f32[]) tuple(%add_fusion.1, %r)
}
"""
    kinds = profile.kinds_of(program)
    assert {name: kinds[name] for name in ("add_fusion.1", "r", "t", "sum")} == {
        "add_fusion.1": "matrix products",
        "r": "sums",
        "t": "copies",
        "sum": "element-wise",
    }

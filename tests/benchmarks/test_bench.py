"""Benchmarks: rounds in turn, medians, and a record of each."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny

from benchmarks import loop, optimizers, runner, soft_labels, students, sweep, timing
from distill_lib import optim, recipes, teachers
from distill_lib.report import benchmarks
from distill_lib.report.benchmarks import Timing
from distill_lib.train import setup


def test_rounds_are_taken_in_turn_after_one_that_does_not_count() -> None:
    """So that a machine that slows down slows all alike, and compilation is in none."""
    calls: list[str] = []
    found = timing.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)
    assert calls == list("ab") * 4
    assert found["a"].rounds == 3 and 0 <= found["a"].low <= found["a"].median <= found["a"].high


def test_a_benchmark_leaves_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with all of their timings, and the machine; read back as they were."""
    rows = [{"model": "a", "step": Timing(0.012, 0.01, 0.02, 5), "ratio": 1.234567, "images": 8}]
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    path = timing.write("made_up", rows)
    assert {"device", "date", "commit", "versions"} <= json.loads(path.read_text()).keys()
    content = benchmarks.read("made_up")
    assert content is not None and content["rows"] == rows
    assert "medians of 5 rounds" in benchmarks.provenance("made_up")
    assert benchmarks.read("never_run") is None
    path.rename(path.with_name("renamed.json"))  # as a benchmark may be, after its record was made
    renamed = benchmarks.read("renamed")
    assert renamed is not None and renamed["benchmark"] == "renamed"
    assert benchmarks.as_text(rows).splitlines()[1].split() == ["a", "12.0", "ms", "1.23", "8"]
    assert benchmarks.cell("step", Timing(0.00107, 0.001, 0.002, 5)) == "1.07 ms", "a ratio beside it has to be seen"
    of_two_kinds = benchmarks.as_text([{"form": "a", "ratio": 1.5}, {"form": "b", "images": 8}]).splitlines()
    assert of_two_kinds[0].split() == ["form", "ratio", "images"] and of_two_kinds[2].split() == ["b", "8"]


@pytest.mark.parametrize("name", runner.NAMES)
def test_every_benchmark_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the name that a user types; what is returned is explained as well."""
    with pytest.raises(SystemExit, match="0"):
        runner.measure(name, ["--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: distill bench {name} [-h]") and "Returns:" in said


def test_options_have_the_types_of_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words and numbers may be several, and a study has fewer cases to choose from."""
    given: list[dict] = []

    def swept(words: Sequence[str] = ("a", "b"), several: Sequence[int] = [1], name: str | None = None) -> list[dict]:
        given.append({"words": words, "several": several, "name": name})
        return []

    monkeypatch.setattr(sweep, "measure", swept)
    assert runner.measure("sweep", ["--words", "b", "--several", "3", "4"]) == []
    assert given == [{"words": ["b"], "several": [3, 4], "name": None}]
    with pytest.raises(Exception, match="invalid choice: 'paper'.*usage: distill bench study"):
        runner.measure("study", ["--cases", "paper"])


@pytest.mark.slow
def test_a_sweep_compiles_in_the_step_that_does_not_count(teacher: Path) -> None:
    """What the second step would compile would be timed."""
    several = sweep.prepare(setup.prepare(tiny.recipe(teacher)), 2, sweep.FORMS[:1])
    for name, taught in several.items():
        taught.run()
        compiled = taught.learn._cache_size()
        taught.run()
        assert taught.learn._cache_size() == compiled, name


@pytest.mark.slow
def test_each_optimiser_has_its_price_beside_adams(monkeypatch: pytest.MonkeyPatch, teacher: Path) -> None:
    small = functools.partial(recipes.get, student=tiny.STUDENT, teacher=str(teacher), batch_size=16, train_images=64)
    monkeypatch.setattr(optimizers.recipes, "get", small)
    rows = optimizers.measure(rounds=2, steps=1)
    assert {row["optimizer"] for row in rows} == set(optim.OPTIMIZERS) and rows[0]["optimizer"] == "adam"
    assert rows[0]["times as long"] == 1 and all(row["step"].median > 0 for row in rows)


def test_stored_answers_are_weighed_as_they_lie_on_disk() -> None:
    """Bytes of the files, the mass that is left out, and how far what is replayed lies from the answers."""
    logits = [np.random.default_rng(step).normal(0, 3, (8, 300)).astype(np.float32) for step in range(2)]
    whole, few = soft_labels.weighed("made up", logits, (300, 3))
    assert whole["rest of the mass"] == 0 and whole["KL to the live answer"] < 1e-5
    exponentials = np.sort(np.exp(np.concatenate(logits)), axis=-1)
    expected = (exponentials[:, :-3].sum(-1) / exponentials.sum(-1)).mean()
    assert few["rest of the mass"] == pytest.approx(expected, rel=1e-4) and few["KL to the live answer"] > 0.01
    assert 300 < whole["bytes a view"] < 2 * 300 + 100 and 14 < few["bytes a view"] < whole["bytes a view"] / 3


def test_the_loop_is_what_it_adds_to_its_compiled_calls() -> None:
    """Pairs of rounds, so that a slow round slows both; a share of the step, and of one of 50 ms."""
    found = loop.overhead([0.011, 0.021, 0.031], [0.010, 0.020, 0.030])
    assert found == pytest.approx({"overhead (s)": 0.001, "share": 0.05, "share at 50 ms": 0.02})


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_models")
def test_steps_of_the_loop_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the difference of two runs, beside the compiled calls, here of tiny networks; starts may be left out."""
    monkeypatch.setattr(loop, "FEW", 4)
    monkeypatch.setattr(loop.recipes, "get", functools.partial(recipes.get, student=tiny.STUDENT, resolution=tiny.SIDE))
    monkeypatch.setattr(students.teachers, "network", lambda teacher: (tiny.STUDENT, None))
    (row,) = loop.measure(rounds=2, steps=16, batches=[8], starts=0)
    assert (row["kind"], row["case"], row["steps a round"]) == ("loop", "fashion, batch 8", 16)
    assert row["loop"].rounds == 2 and row["alone"].median > 0  # the difference of runs so short may be below zero


def test_a_made_up_run_has_the_sizes_of_its_preset(tmp_path: Path) -> None:
    """And needs no file that is not here: a teacher of the same network with random weights, on mock images."""
    preset = recipes.get("fashion", "quick", dtype="bfloat16")
    recipe = students.made_up(preset, tmp_path)
    assert recipe.variant == "smoke" and recipe.train_images == students.BATCHES * preset.batch_size
    for name in ("student", "batch_size", "resolution", "policy", "dtype"):
        assert getattr(recipe, name) == getattr(preset, name)
    teacher = teachers.load(recipe.teacher, num_classes=10, channels=1, resolution=28)
    embedded = teachers.load("fashion", num_classes=10, channels=1, resolution=28)
    assert type(teacher.ensemble.members[0].model) is type(embedded.ensemble.members[0].model)
    assert teacher.sha256 != embedded.sha256


@pytest.mark.slow
def test_batches_of_given_images_are_those_of_training(tmp_path: Path) -> None:
    """For the first step: what is timed alone is the program of a run, teacher and all."""
    task = setup.prepare(students.made_up(recipes.get("fashion", "quick", batch_size=4, policy="mix"), tmp_path))
    mesh = students.sharding.data_mesh(1)
    real = next(task.batches(0, mesh))
    _, pixels = next(task.train.batches(task.recipe, 0, mesh, None, ()))
    given = next(students.batches_of(task, itertools.repeat(pixels)))
    np.testing.assert_array_equal(given.images, real.images)
    np.testing.assert_array_equal(given.targets, real.targets)

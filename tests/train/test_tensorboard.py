"""Curves for TensorBoard hold the metrics of a run, once each, however often it was stopped; training never waits."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from kills import killed_after
from tensorboardX.proto import event_pb2

from distill_lib import train
from distill_lib.errors import DistillError
from distill_lib.train import tensorboard

pytestmark = pytest.mark.usefixtures("tiny_models")


@pytest.fixture(autouse=True)
def _asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tensorboard.VARIABLE, "tensorboard")


def events(path: Path) -> Iterator[event_pb2.Event]:
    """What lies in a file, record by record: length, its checksum, content, its checksum."""
    content = path.read_bytes()
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        yield event_pb2.Event.FromString(content[12 : 12 + size])
        content = content[16 + size :]


def points(run: train.Run) -> list[dict[str, float]]:
    """The points that TensorBoard shows of a run: a start makes void what was drawn of its step and of later ones."""
    folder = run.directory.parents[1] / "tensorboard" / run.directory.parent.name / run.directory.name
    shown: list[dict[str, float]] = []
    for path in sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:])):
        for event in events(path):
            if event.HasField("session_log"):
                shown = [point for point in shown if point["step"] < event.step]
            elif event.HasField("summary"):
                shown.append({"step": event.step} | {each.tag: each.simple_value for each in event.summary.value})
    return shown


def as_drawn(run: train.Run) -> list[dict[str, float]]:
    """A run's metrics in float32, which TensorBoard's points are, in two sections."""
    sections = {name: name.replace("validation_", "validation/") for name in run.rows[0]}
    sections = {name: tag if "/" in tag or tag == "step" else f"training/{tag}" for name, tag in sections.items()}
    return [{sections[name]: float(np.float32(value)) for name, value in row.items()} for row in run.rows]


def test_a_run_that_is_stopped_and_goes_on_has_each_point_once(teacher: Path, tmp_path: Path) -> None:
    """Of two students in training together, one point was drawn after their last checkpoint, and is drawn again."""
    recipes = [tiny.recipe(teacher, epochs=3, learning_rate=rate) for rate in (0.1, 0.2)]
    with killed_after(saves=10):
        train.sweep(recipes, tmp_path, checkpoint_seconds=0)
    for recipe, run in zip(recipes, train.finished(train.sweep(recipes, tmp_path)), strict=True):
        assert run.record["resumed"] == 1 and points(run) == as_drawn(run)
        files = [*(tmp_path / "tensorboard").rglob(f"{run.directory.name}/*")]
        assert len(files) == 2 and train.fit(recipe, tmp_path).reused
        assert [*(tmp_path / "tensorboard").rglob(f"{run.directory.name}/*")] == files  # nothing is drawn again


def test_a_run_that_was_finished_before_is_drawn_when_it_is_reused(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv(tensorboard.VARIABLE)
        train.fit(tiny.recipe(teacher), tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    run = train.fit(tiny.recipe(teacher), tmp_path)
    assert run.reused and points(run) == as_drawn(run)


def test_a_curve_that_cannot_be_written_is_told_and_the_run_goes_on(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    run = train.fit(tiny.recipe(teacher), tmp_path)
    assert (run.directory / "run.json").is_file()
    assert capsys.readouterr().err.count("cannot be written (Not a directory): it lacks a point.\n") == len(run.rows)


def test_what_cannot_be_had_is_an_error_before_anything_is_trained(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(DistillError, match=r"DISTILL_LOG needs tensorboardX: pip install 'distill_lib\[tensorboard\]'"):
        train.fit(tiny.recipe(teacher), tmp_path)
    monkeypatch.setenv(tensorboard.VARIABLE, "tensorbord")
    with pytest.raises(DistillError, match=r"unknown DISTILL_LOG 'tensorbord'\. Did you mean 'tensorboard'\?"):
        train.fit(tiny.recipe(teacher), tmp_path)
    assert not [*tmp_path.iterdir()]

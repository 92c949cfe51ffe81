"""Where a machine is lost with its disk, the run goes on from the mirror on another; a bucket is emulated in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import tiny
from kills import killed_after

from distill_lib import train
from distill_lib.errors import DistillError
from distill_lib.train import checkpoint, mirror

pytestmark = pytest.mark.usefixtures("tiny_models")

FILES = ("student.npz", "metrics.csv")  # that are the same to the last bit; a record has its own date


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """An empty one, which is the mirror."""
    store = fsspec.filesystem("memory")
    monkeypatch.setenv(mirror.ADDRESS, "memory://bucket/runs")
    yield store
    store.rm("/bucket", recursive=True)


def test_a_run_goes_on_on_another_machine(
    teacher: Path, tmp_path: Path, bucket: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last checkpoint, to the bits of a run that was never killed; a third machine reuses it."""
    recipe = tiny.recipe(teacher, policy="mix", epochs=3)
    with killed_after(saves=5):
        train.fit(recipe, tmp_path / "lost", checkpoint_seconds=0)
    assert [Path(path).name for path in bucket.find("/bucket")] == [checkpoint.NEWEST]
    run = train.fit(recipe, tmp_path / "second")
    assert run.record["resumed"] == 1
    assert {Path(path).name for path in bucket.find("/bucket")} == set(mirror.FINISHED)
    third = train.fit(recipe, tmp_path / "third")
    assert third.reused and third.rows == run.rows and third.directory.is_relative_to(tmp_path / "third")
    monkeypatch.delenv(mirror.ADDRESS)
    unbroken = train.fit(recipe, tmp_path / "unbroken")
    for other in (run, third):
        assert all((other.directory / name).read_bytes() == (unbroken.directory / name).read_bytes() for name in FILES)


def test_a_mirror_that_fails_is_told(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a run begins it is an error; what cannot be copied later is here all the same."""
    recipe = tiny.recipe(teacher, policy="mix", epochs=3)
    monkeypatch.setenv(mirror.ADDRESS, "nowhere://bucket")
    with pytest.raises(DistillError, match=r"nowhere://bucket cannot be read \(.*\); mend that, or unset") as caught:
        train.fit(recipe, tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv(mirror.ADDRESS, "file:///dev/null")
    run = train.fit(recipe, tmp_path)
    assert (run.directory / "run.json").is_file()
    said = capsys.readouterr().err
    assert "file:///dev/null cannot be written" in said and f": {run.directory} is here alone.\n" in said

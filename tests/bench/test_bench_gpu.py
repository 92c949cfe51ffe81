"""The ten minutes of an accelerator: what runs, that nothing stops the rest, and that nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distill_lib import recipes, teachers
from distill_lib.bench import __main__ as command
from distill_lib.bench import gpu, loop, made_up, training
from distill_lib.experiments import notebooks


def test_parts_that_fail_or_hang_are_told_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A part that hangs ends with what it has started; all know the folder of results."""
    monkeypatch.setenv("DISTILL_RESULTS", "elsewhere")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    late = tmp_path / "late"
    sleeps = f"import time, pathlib; time.sleep(5); pathlib.Path({str(late)!r}).touch()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeps!r}])"
    parts = (
        gpu.Part("fails", 60, ("-c", "raise SystemExit(3)")),
        gpu.Part("hangs", 2, ("-c", child)),
        gpu.Part("works", 60, ("-c", "import os, time; time.sleep(5); print('into', os.environ['DISTILL_RESULTS'])")),
    )
    monkeypatch.setattr(gpu, "SMALL", parts)
    rows = gpu.measure(["--small", "--out", str(tmp_path / "out")])
    assert [row["outcome"].partition(",")[0] for row in rows] == [
        "failed with exit code 3",
        "stopped after 2 s",
        "done",
    ]
    assert f"into {tmp_path / 'out'}\n" in capfd.readouterr().out
    assert not late.exists()
    assert os.environ["DISTILL_RESULTS"] == str(tmp_path / "out"), "where the benchmark's own record is written"


@pytest.mark.parametrize("parts", [gpu.PARTS, gpu.SMALL])
def test_all_parts_exist_and_together_take_less_than_ten_minutes(parts: tuple[gpu.Part, ...]) -> None:
    """Also where each takes all the time that it has."""
    assert sum(part.seconds for part in parts) < 600
    for _, module, name, *rest in (part.command for part in parts):
        assert name in command.NAMES if module == "distill_lib.bench" else notebooks.find(rest[0], Path(__file__))


def test_a_made_up_run_has_the_sizes_of_its_preset(tmp_path: Path) -> None:
    """And needs no file that is not here: a teacher of the same network with random weights, on mock images."""
    preset = recipes.get("fashion", "quick", dtype="bfloat16")
    recipe = made_up.like(preset, tmp_path)
    assert recipe.variant == "smoke" and recipe.train_images == made_up.BATCHES * preset.batch_size
    for name in ("student", "batch_size", "resolution", "policy", "dtype"):
        assert getattr(recipe, name) == getattr(preset, name)
    teacher = teachers.load(recipe.teacher, num_classes=10, colours=1, resolution=28)
    embedded = teachers.load("fashion", num_classes=10, colours=1, resolution=28)
    assert type(teacher.ensemble.members[0].model) is type(embedded.ensemble.members[0].model)
    assert teacher.sha256 != embedded.sha256


def test_steps_of_a_run_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the training loop, as the difference of two runs."""
    monkeypatch.setattr(loop, "FEW", 4)
    (row,) = training.measure(["--dataset", "fashion", "--variant", "quick", "--steps", "16"])
    assert (row["student"], row["teacher"], row["side"], row["images"]) == ("bit_r11w8", "bit_r11w24", 28, 128)
    assert row["images/s"] == pytest.approx(128 / (row["step (ms)"] / 1e3)) and row["TFLOP/s"] > 0

"""The ten minutes of an accelerator: what runs, that nothing stops the rest, and that nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import gpu, runner
from distill_lib.experiments import notebooks


@pytest.mark.slow
def test_parts_that_fail_or_hang_are_told_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A part that hangs ends with what it has started; all know the folder of results."""
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    late, run = tmp_path / "late", gpu.run
    sleeps = f"import time, pathlib; time.sleep(3); pathlib.Path({str(late)!r}).touch()"
    codes = {
        "fails": "raise SystemExit(3)",
        "hangs": f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeps!r}])",
        "works": "import os, time; time.sleep(3); print('into', os.environ['DISTILL_RESULTS'])",
    }
    monkeypatch.setattr(gpu, "PARTS", {"fails": (60, "fails"), "hangs": (2, "hangs"), "works": (60, "works")})
    monkeypatch.setattr(gpu, "run", lambda command, limit: run([*command[:1], "-c", codes[command[-1]]], limit))
    rows = gpu.measure()
    assert [row["outcome"].partition(",")[0] for row in rows] == [
        "failed with exit code 3",
        "stopped after 2 s",
        "done",
    ]
    assert f"into {tmp_path / 'gpu'}\n" in capfd.readouterr().out
    assert not late.exists()
    assert os.environ["DISTILL_RESULTS"] == str(tmp_path / "gpu"), "where the benchmark's own record is written"


def test_all_parts_exist_and_together_take_less_than_ten_minutes() -> None:
    """Also where each takes all the time that it has."""
    assert sum(seconds for seconds, _ in gpu.PARTS.values()) < 600
    for command, name, *options in (command.split() for _, command in gpu.PARTS.values()):
        if command == "run":
            assert notebooks.find(name, Path(__file__))
            continue
        with pytest.raises(SystemExit, match="0"):  # an unknown option would be told instead
            runner.measure(name, [*options, "--help"])

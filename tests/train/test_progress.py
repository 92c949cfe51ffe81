"""Progress: plain lines in logs, a bar at a terminal, and both say how far a run is."""

from __future__ import annotations

import io
import re
import sys

import pytest

from distill_lib.train import progress


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_log_gets_plain_lines(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, images/s, loss and time left, one line a report, no control characters."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown = progress.Progress("run", total_steps=40, batch_size=16)
    clock[0] += 5
    shown.report(10, 1.25)
    shown.close()
    assert capsys.readouterr().out == "run: step 10/40, 32 images/s, loss 1.2500, 15 s left\n"


def test_a_resumed_run_counts_only_its_own_steps(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Steps of an earlier process are done, but say nothing about the speed."""
    shown = progress.Progress("run", total_steps=40, batch_size=16, start_step=20)
    clock[0] += 5
    shown.report(30, 0.5)
    assert "step 30/40, 32 images/s, loss 0.5000, 5 s left" in capsys.readouterr().out


def test_the_first_moment_does_not_divide_by_zero(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A report in the very moment of the start."""
    progress.Progress("run", total_steps=4, batch_size=16).report(0, 0.5)
    assert "step 0/4" in capsys.readouterr().out


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar stands where the run stands, and shows loss and images/s; nothing goes to the log."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = progress.Progress("run", total_steps=40, batch_size=16, start_step=20)
    shown.report(30, 1.25)
    shown.close()
    assert capsys.readouterr().out == ""
    assert "run" in terminal.getvalue() and "loss=1.2500" in terminal.getvalue()
    assert "images_per_s=" in terminal.getvalue()
    assert re.search(r"30/40\b", terminal.getvalue())

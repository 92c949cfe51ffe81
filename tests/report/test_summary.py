"""The table that `nox -s study` ends with."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from distill_lib import cli


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of the test's own."""
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    return tmp_path


def test_a_line_for_every_policy_and_where_it_comes_from(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made_up.write_run(results, "quick", policy, 0) for policy in ("labels", "mix")]
    made_up.write_run(results, "short", "mix", 0)
    assert cli.main(["records", "fashion_quick"]) == 0
    said = capsys.readouterr().out
    for run, name in zip(runs, ("labels", "function matching"), strict=True):
        (line,) = [line for line in said.splitlines() if f" {name} " in line]
        assert f" {100 * run['result']['test_top1']:.1f} " in line
        assert run["run_id"] in said
    assert said.splitlines()[-1].startswith("2 runs (")


def test_an_unknown_study_lists_those_that_there_are(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up.write_run(results, "quick", "mix", 0)
    assert cli.main(["records", "fashion_quik"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown study 'fashion_quik'. Did you mean 'fashion_quick'? Valid: fashion_quick."
    ]


def test_without_a_study_those_that_there_are_are_counted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["records"]) == 0
    assert capsys.readouterr().out == f"no runs in {results}\n"
    for variant, policy in (("quick", "labels"), ("quick", "mix"), ("short", "mix")):
        made_up.write_run(results, variant, policy, 0)
    assert cli.main(["records"]) == 0
    assert capsys.readouterr().out.splitlines() == ["fashion_quick  2 runs", "fashion_short  1 run"]

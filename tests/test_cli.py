"""The command line: what it understands, what it hands on, and that every mistake is one line and an exit code."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import runner
from distill_lib import cli, export, recipes
from distill_lib.datasets import prepare
from distill_lib.errors import DistillError
from distill_lib.evaluation import evaluate
from distill_lib.experiments import notebooks
from distill_lib.figures import runs
from distill_lib.report import aggregate, claims, paper_numbers
from distill_lib.teachers import published
from distill_lib.train import record_soft_labels

COMMANDS = ("run", "sweep", "presets", "data", "teachers", "evaluate", "export", "soft-labels", "records", "bench")


def test_the_command_is_installed_and_is_a_module_too() -> None:
    """`distill` and `python -m distill_lib` are the same; the exit code is the process's own."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"distill": "distill_lib.cli:main"}
    command = [sys.executable, "-m", "distill_lib"]
    said = subprocess.run([*command, "rnu"], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (1, "") and said.stderr.startswith("error: unknown command 'rnu'.")
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: distill ")


def test_the_help_fits_a_screen_and_names_all_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 lines of 80 characters. Without a command it is printed too, and nothing was done."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 80
    assert tuple(re.findall(r"^ {4}(\S+)", text, flags=re.MULTILINE)) == COMMANDS
    assert cli.main([]) == 1 and capsys.readouterr().out == text


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["data", "check"], ["data", "prepare"]])
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: distill {' '.join(command)} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], f"unknown command 'rnu'. Did you mean 'run'? Valid: {', '.join(COMMANDS)}."),
        (["--list"], f"unknown command '--list'. Valid: {', '.join(COMMANDS)}."),
        (["run"], "say which notebook: `distill run NOTEBOOK`. `distill run --list` prints them."),
        (["run", "--lsit"], "unknown argument '--lsit'. usage: distill run [-h] [--list] [-p NAME VALUE]"),
        (["run", "distil"], "unknown notebook 'distil'. Did you mean 'distill'? Valid: ablations, "),
        (["run", "distill", "-p", "policy"], "argument -p: expected 2 arguments. usage: distill run "),
        (
            ["presets", "fashion", "flowers"],
            "unknown argument 'flowers'. usage: distill presets [-h] [--device",
        ),
        (["sweep"], "the following arguments are required: notebook. usage: distill sweep [-h]"),
        (["data"], "the following arguments are required: ACTION. usage: distill data [-h] ACTION"),
        (["data", "chekc"], "argument ACTION: invalid choice: 'chekc' (choose from "),
        (
            ["data", "check", "--register-checksums"],
            "unknown argument '--register-checksums'. usage: distill data ",
        ),
        (["data", "prepare"], "the following arguments are required: NAME. usage: distill data prepare [-h]"),
        (["teachers", "--foldr", "x"], "unknown argument '--foldr'. usage: distill teachers [-h] [--folder FOLDER]"),
        (["evaluate", "mock"], "the following arguments are required: dataset. usage: distill evaluate [-h]"),
        (["evaluate", "mock", "fashion", "--limit", "few"], "argument --limit: invalid int value: 'few'. usage: "),
        (["export", "x", "--to", "torch"], "argument --to: invalid choice: 'torch' (choose from "),
        (["soft-labels"], "the following arguments are required: folder. usage: distill soft-labels [-h]"),
        (["soft-labels", "x", "--keep", "all"], "argument --keep: invalid int value: 'all'. usage: "),
        (
            ["records", "--figrue"],
            "unknown argument '--figrue'. usage: distill records [-h] [--claims]",
        ),
        (["bench"], "unknown benchmark ''. Valid: sweep, "),
        (["bench", "swep"], "unknown benchmark 'swep'. Did you mean 'sweep'? Valid: sweep, "),
        (
            ["bench", "sweep", "--forms", "x"],
            "argument --forms: invalid int value: 'x'. usage: distill bench sweep [-h]",
        ),
        (["bench", "sweep", "--rounds", "1"], "a median and its quartiles need at least 2 rounds, got --rounds 1."),
        (["bench", "--rounds", "2"], "unknown argument '--rounds'. usage: distill bench [-h] ..."),
    ],
)
def test_a_mistake_is_one_line_that_names_what_is_valid(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {message}") and err.count("\n") == 1 and not out


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the functions behind the commands are given, which do nothing here."""
    calls: list[Any] = []

    def stand_in(answer: Any) -> Any:
        def function(*given: Any, **named: Any) -> Any:
            calls.append((*given, named) if named else given)
            return answer

        return function

    store = argparse.Namespace(folder="answers", steps=2, kept=3, bytes_per_view=1.5, views=4, bytes=2**20)
    status = prepare.Status("fashion", "absent", "here", None, hints=("mind the gap",))
    for module, name, answer in (
        (notebooks, "run", None), (paper_numbers, "as_text", "presets"), (prepare, "prepare", None),
        (prepare, "status", status), (published, "table", "table"), (published, "resolve", "path"),
        (export, "export", "file"),
        (evaluate, "evaluate", {"top1": 0.5}), (record_soft_labels, "store", store), (aggregate, "summarise", "study"),
        (aggregate, "studies", "studies"), (claims, "as_text", "claims"), (runs, "save_patience", None),
        (runner, "main", None),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, stand_in(answer))
    return calls


JUDGED = {"teacher": None, "split": "test", "resolution": None, "side": None, "limit": None, "mock": False}
GIVEN = {"teacher": "T", "split": "train", "resolution": 8, "side": 0.5, "limit": 3, "mock": True}
NOTEBOOK = notebooks.find("distill", Path(__file__))


@pytest.mark.parametrize(
    ("words", "calls", "code"),
    [
        ("run distill -p seed 7 -p policy mix --output o", [(NOTEBOOK, Path("o"), {"seed": 7, "policy": "mix"})], 0),
        ("run distill", [(NOTEBOOK, Path("results") / "notebooks" / "distill.ipynb", {})], 0),
        ("presets", [(None, "H100 SXM")], 0),
        ("presets pets --device A100", [("pets", "A100")], 0),
        ("data check fashion pets", [("fashion",), ("pets",)], 1),
        ("data prepare pets", [("pets", {"register_checksums": False}), ("pets",)], 1),
        ("data prepare pets --register-checksums", [("pets", {"register_checksums": True}), ("pets",)], 1),
        ("teachers --folder f", [(Path("f"),)], 0),
        ("teachers a b --folder f", [("a", {"folder": Path("f")}), ("b", {"folder": Path("f")})], 0),
        ("evaluate n d", [("n", "d", JUDGED)], 0),
        ("evaluate n d --teacher T --split train --resolution 8 --side 0.5 --limit 3 --mock", [("n", "d", GIVEN)], 0),
        ("export r --to stablehlo", [("r", "stablehlo", None, None)], 0),
        ("export r --to safetensors --output o --resolution 8", [("r", "safetensors", Path("o"), 8)], 0),
        ("soft-labels f", [(recipes.get("fashion", "quick"), "f", 10, {"loading": "auto"})], 0),
        (
            "soft-labels f --keep 3 --loading stream -p variant medium -p seed 2",
            [(recipes.get("fashion", "medium", seed=2), "f", 3, {"loading": "stream"})],
            0,
        ),
        (
            "soft-labels f --teacher mine:logits",
            [(recipes.get("fashion", "quick", teacher="mine:logits"), "f", 10, {"loading": "auto"})],
            0,
        ),
        ("records", [()], 0),
        ("records fashion_quick", [("fashion_quick", {"mock": False})], 0),
        ("records fashion_smoke", [("fashion_smoke", {"mock": True})], 0),
        ("records --claims", [()], 0),
        ("records --figure a.png", [(Path("a.png"),)], 0),
        ("bench step --rounds 2 --cases mix -h", [(["step", "--rounds", "2", "--cases", "mix", "-h"],)], 0),
    ],
)
def test_a_command_hands_its_arguments_on(
    words: str, calls: list[Any], code: int, called: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the one function that does the work, with their types and defaults; the exit code says how it went."""
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setenv("DISTILL_RESULTS", "results")
    assert cli.main(words.split()) == code
    assert called == calls


def test_runs_of_a_notebook_are_told_where_to_draw(called: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the environment, which its process inherits."""
    monkeypatch.setenv("DISTILL_LOG", "")
    monkeypatch.chdir(Path(__file__).parents[1])
    cli.main(["run", "distill", "--log", "tensorboard"])
    assert len(called) == 1 and os.environ["DISTILL_LOG"] == "tensorboard"


def test_reading_a_command_runs_nothing(called: list[Any]) -> None:
    options = cli.parse(["evaluate", "n", "d", "--limit", "3"])
    assert (options.network, options.dataset, options.limit) == ("n", "d", 3) and not called
    with pytest.raises(DistillError, match="unknown argument '--limt'"):
        cli.parse(["evaluate", "n", "d", "--limt", "3"])


def test_the_words_of_the_process_are_taken(called: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the installed command calls it."""
    monkeypatch.setattr(sys, "argv", [os.fspath(Path("bin") / "distill"), "records"])
    assert cli.main() == 0 and called == [()]

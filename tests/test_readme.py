"""The README and the book's page of commands say what is true: commands, files and code work as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from distill_lib import cli, recipes, records, teachers
from distill_lib.experiments import notebooks
from distill_lib.report import claims
from distill_lib.teachers import published

ROOT = Path(__file__).parents[1]
README, START = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "book/start.md"))
TEXT = f"{README}\n{START}".replace("\\\n", "")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 70


def test_the_two_commands() -> None:
    lines = "".join(blocks("bash")).splitlines()
    assert lines[:2] == [f"python -m pip install nox && python -m nox -s {name}" for name in ("study", "tests")]


def test_its_line_of_results_is_that_of_the_records() -> None:
    assert claims.headline(records.read(ROOT / "results")) in " ".join(README.split())


def test_every_session_that_it_names_exists() -> None:
    sessions = re.findall(r"@nox\.session(?:\(name=\"(\w+)\"\))?\ndef (\w+)", (ROOT / "noxfile.py").read_text())
    assert set(re.findall(r"nox -s (\w+)", TEXT)) <= {name or function for name, function in sessions}


def test_every_notebook_command_names_true_parameters_and_values() -> None:
    commands = re.findall(r"(?:nox -s run --|distill run) (\w+) (.*)", "".join(blocks("bash") + blocks("sh")))
    assert commands
    for name, rest in commands:
        given = dict(re.findall(r"-p (\w+) (\"[^\"]*\"|\S+)", rest))
        assert set(given) <= set(notebooks.parameters_of(notebooks.find(name, ROOT)))
        recipes.get(given.get("dataset", "fashion"), given.get("variant", "quick"), policy=given.get("policy"))


def test_every_command_of_the_library_that_it_names_is_one() -> None:
    commands = re.findall(r"(?:^ *|`|bin/)distill ([a-z][^`\n]*)", TEXT, flags=re.MULTILINE)
    assert {command.split()[0] for command in commands} >= {"run", "presets", "data", "teachers", "evaluate", "bench"}
    for command in commands:
        cli.parse(shlex.split(command))


def test_every_file_that_it_names_exists() -> None:
    linked = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    named = [path for path in re.findall(r"`([\w./]+/)`", TEXT) if not path.startswith("book/_build")]
    assert [path for path in linked + named if not (ROOT / path).exists()] == []


@pytest.mark.skipif(not teachers.EMBEDDED["fashion"].is_file(), reason="the embedded teacher is not here")
def test_the_python_code_runs() -> None:
    code, *_ = blocks("python")
    names: dict = {}
    exec(code, names)
    assert names["logits"].shape == (100, 10)


def test_every_teacher_that_it_names_is_published_as_it_says() -> None:
    named = re.findall(r'teachers\.load\("(\w+)", num_classes=(\d+), channels=3, resolution=(\d+)\)', TEXT)
    assert {name for name, _, _ in named} == {"R152x2_T_flowers128", "imagenet_lite0"}
    for name, classes, resolution in named:
        if name in published.CHECKPOINTS:
            checkpoint = published.CHECKPOINTS[name]
            assert (checkpoint.num_classes, checkpoint.resolution) == (int(classes), int(resolution))
        else:
            teachers.load(name, num_classes=int(classes), channels=3, resolution=int(resolution))

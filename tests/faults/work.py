"""The work that goes wrong: a student, a store of soft labels, and a number added to a record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tiny

from distill_lib import records, train
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe
from distill_lib.teachers import soft_labels
from distill_lib.train import checkpoint, record_soft_labels

Files = dict[str, bytes]


@dataclass(frozen=True)
class Work:
    """Something that is done in a folder, and can be taken up again.

    Attributes:
        name: in words, for the table.
        do: does it, or goes on with it, or finds it done.
        made: what is there at its end, by name: to the last bit the same, however often it was stopped.
        saved: how far it is, by what lies there: a number of steps, which never falls.
        begin: puts there what it starts from.
    """

    name: str
    do: Callable[[Path], object]
    made: Callable[[Path], Files]
    saved: Callable[[Path], int]
    begin: Callable[[Path], object] = lambda root: None


def recipe(teacher: Path, **settings: object) -> Recipe:
    """Six steps of function matching, reported twice."""
    return tiny.recipe(teacher, policy="mix", epochs=1.5, warmup_steps=2, evaluations=2, **settings)


def works(teacher: Path, trained: Path) -> list[Work]:
    """All of them; `trained` holds the finished run, from which the last one starts."""
    wanted, other = recipe(teacher), recipe(teacher, learning_rate=3e-3)
    return [
        Work("training", lambda root: fit(wanted, root), student, steps),
        Work("two students at once", lambda root: sweep([wanted, other], root), student, steps),
        Work("storing soft labels", lambda root: store(wanted, root), labels_of, stored_steps),
        Work("adding to a record", lambda root: add(wanted, root), student, steps, lambda root: copy(trained, root)),
    ]


def fit(wanted: Recipe, root: Path) -> None:
    """Trains, with a checkpoint after every step."""
    train.fit(wanted, root, checkpoint_seconds=0)


def sweep(recipes: list[Recipe], root: Path) -> None:
    """Trains several; the error of one of them is raised."""
    for run in train.sweep(recipes, root, checkpoint_seconds=0):
        if isinstance(run, DistillError):
            raise run


def store(wanted: Recipe, root: Path) -> None:
    """Stores soft labels, a shard a step, and reads them all."""
    held = record_soft_labels.store(wanted, root / "labels", 3)
    for step in range(held.steps):
        held.read(step)


def add(wanted: Recipe, root: Path) -> None:
    """Adds a number to the record of a finished run, and reads it as a run that is reused."""
    (path,) = root.glob("*/*/run.json")
    records.add(path.parent, {"test_extra": 0.5})
    train.fit(wanted, root)


def copy(source: Path, root: Path) -> None:
    """A copy of a folder of results."""
    shutil.copytree(source, root, dirs_exist_ok=True)


def student(root: Path) -> Files:
    """Weights and metrics as they are, and of a record what a run decides."""
    made = {}
    for path in sorted(root.glob("*/*/*")):
        content = path.read_bytes()
        if path.name == "run.json":
            record = records.load(path.parent) or {}
            records.read_rows(path.parent, record)
            decided = {name: record[name] for name in ("recipe", "result", "steps", "data", "teacher")}
            content = json.dumps(decided | {"parts": record.get("parts")}, sort_keys=True).encode()
        made[str(path.relative_to(root))] = content
    return made


def labels_of(root: Path) -> Files:
    """The folder, file by file."""
    return {path.name: path.read_bytes() for path in sorted((root / "labels").iterdir())}


def steps(root: Path) -> int:
    """Of the students in a results folder the steps that are saved, added up."""
    total = 0
    for folder in root.glob("*/*"):
        if (record := records.load(folder)) is not None:
            total += record["steps"]
        elif (saved := checkpoint.load(folder)) is not None:
            total += int(saved[0][0])
    return total


def stored_steps(root: Path) -> int:
    """Steps that the store covers."""
    header = root / "labels" / "header.json"
    return soft_labels.load(header.parent).steps if header.is_file() else 0

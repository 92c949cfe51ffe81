"""A run that goes back where training goes wrong: it ends well, says so, and does so again wherever it is killed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from kills import killed_after

from distill_lib import records, train
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe
from distill_lib.train import Run, divergence, setup, step
from distill_lib.train.task import Task

pytestmark = pytest.mark.usefixtures("tiny_models")

BAD = (4, 6)  # the numbers of the batches, from 0, of which no loss is a number; a report comes after each 3 steps
WENT_BACK = [{"step": 5, "back_to": 3, "skipped": 2, "problem": "the loss is nan"}] * 2


def recipe_of(teacher: Path, way: str, **settings: object) -> Recipe:
    """Twelve steps, reported four times."""
    return tiny.recipe(teacher, policy="mix", epochs=3, on_divergence=way, **settings)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Has batches of some numbers hold targets that are no numbers."""
    teach = step.teach

    def planted(bad: Callable[[int], bool]) -> None:
        def teaching(*about: object) -> Callable[..., step.Batch]:
            def batch(key: jax.Array, number: int, *rest: object) -> step.Batch:
                made = teach(*about)(key, number, *rest)
                return made._replace(targets=made.targets * np.nan) if bad(int(number)) else made

            return batch

        monkeypatch.setattr(step, "teach", teaching)

    return planted


@pytest.fixture
def rewound(teacher: Path, tmp_path: Path, plant: Callable) -> Run:
    """The run that meets the bad batches, twice after the same report, and is not killed."""
    plant(lambda number: number in BAD)
    return train.fit(recipe_of(teacher, "rewind"), tmp_path / "rewound")


def assert_same(run: Run, other: Run) -> None:
    """The same student and the same course, to the last bit, and the same is told."""
    jax.tree.map(np.testing.assert_array_equal, run.variables, other.variables)
    assert run.rows == other.rows and run.record.get("rewinds") == other.record.get("rewinds")


def test_a_run_goes_back_where_it_is_asked_to_and_says_so(teacher: Path, tmp_path: Path, rewound: Run) -> None:
    """Without it the same batch ends the run; with it all rows are numbers, and the record tells of it."""
    with pytest.raises(DistillError, match=r"the loss is nan by step 6; lower learning_rate"):
        train.fit(recipe_of(teacher, "stop"), tmp_path)
    assert [row["step"] for row in rewound.rows] == [3, 6, 9, 12] and np.isfinite(rewound.rows[-1]["largest_loss"])
    record = records.load(rewound.directory)
    assert record is not None and record["rewinds"] == WENT_BACK
    assert records.read_rows(rewound.directory, record) == rewound.rows


def test_it_is_the_run_that_is_shown_other_batches_from_the_report_on(
    teacher: Path, tmp_path: Path, rewound: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: nothing of the steps that were taken back is left."""
    made = Task.batches

    def skipping(task: Task, start: int, mesh: jax.sharding.Mesh) -> Iterator[step.Batch]:
        yield from itertools.islice(made(task, start, mesh), 3)
        yield from made(task, 7, mesh)

    monkeypatch.setattr(Task, "batches", skipping)
    run = train.fit(recipe_of(teacher, "stop"), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, run.variables, rewound.variables)
    assert run.rows == rewound.rows


@pytest.mark.parametrize("kill", [4, 5, 8], ids=["before", "in between", "later"])
def test_a_run_that_is_killed_goes_back_alike(kill: int, teacher: Path, tmp_path: Path, rewound: Run) -> None:
    """Before the first bad batch, before the second, and when it has gone back twice: to the last bit."""
    with killed_after(saves=kill):
        train.fit(recipe_of(teacher, "rewind"), tmp_path, checkpoint_seconds=0)
    run = train.fit(recipe_of(teacher, "rewind"), tmp_path)
    assert run.record["resumed"] == 1
    assert_same(run, rewound)


def test_a_run_that_goes_wrong_for_ever_ends(teacher: Path, tmp_path: Path, plant: Callable) -> None:
    """It is told how often it went back."""
    plant(lambda number: number >= BAD[0])
    message = rf"the loss is nan by step 6 again, after going back {divergence.MOST_REWINDS} times; lower learning_rate"
    with pytest.raises(DistillError, match=message):
        train.fit(recipe_of(teacher, "rewind"), tmp_path)


def test_students_of_a_sweep_go_back_alone(teacher: Path, tmp_path: Path, rewound: Run) -> None:
    """Since they would share no batches afterwards, they share none; one that need not go back is as without it."""
    first, second = (recipe_of(teacher, "rewind", learning_rate=rate) for rate in (1e-2, 2e-2))
    runs = [run for run in train.sweep([first, second], tmp_path) if isinstance(run, Run)]
    assert_same(runs[0], rewound)
    assert [run.record["students_per_step"] for run in runs] == [1, 1]
    assert [run.record["rewinds"] for run in runs] == [WENT_BACK, WENT_BACK]


def test_a_run_that_has_no_cause_to_go_back_is_the_run_without_it(teacher: Path, tmp_path: Path) -> None:
    """The same bits, under a name of its own; the name of a run without it is as it was before there was a choice."""
    stop, rewind = (recipe_of(teacher, way) for way in ("stop", "rewind"))
    runs = [train.fit(recipe, tmp_path) for recipe in (stop, rewind)]
    assert_same(*runs)
    assert "rewinds" not in runs[1].record and len({run.directory for run in runs}) == 2
    assert stop == tiny.recipe(teacher, policy="mix", epochs=3)


def test_stored_soft_labels_cannot_be_skipped(teacher: Path, tmp_path: Path) -> None:
    """They end with the schedule; told before anything is read."""
    with pytest.raises(DistillError, match="on_divergence rewind has no replay"):
        setup.prepare(recipe_of(teacher, "rewind"), replay=tmp_path)


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        ([1.0, 5.0], None),
        ([29.0, 149.0], None),
        ([31.0, 5.0], "the loss is 31, and usually 1"),
        ([1.0, 151.0], "the gradient's length is 151, and usually 5"),
        ([1.0, np.inf], "the gradient's length is inf"),
        ([np.nan, 5.0], "the loss is nan"),
    ],
)
def test_a_leap_is_told_from_noise(last: list[float], problem: str | None) -> None:
    """By the median of the steps before, of which there have to be some; what is no number is always told."""
    before = [[1.0, 5.0]] * divergence.FEWEST
    assert divergence.problem(last, before) == problem
    assert divergence.problem(last, before[1:]) == (problem if not np.isfinite(last).all() else None)

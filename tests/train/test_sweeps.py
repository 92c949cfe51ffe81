"""A sweep: each student ends as it would alone, whatever the others do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from distill_lib import optim, train
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe
from distill_lib.train import Run, checkpoint, loop, setup, step, sweeps
from distill_lib.train.task import Task

pytestmark = pytest.mark.usefixtures("tiny_models")


@pytest.fixture(scope="module")
def recipes(teacher: Path) -> list[Recipe]:
    """Students that differ in optimiser, learning rate, weight decay, temperature, initialisation and architecture."""
    base = tiny.recipe(teacher, policy="mix", epochs=3, warmup_steps=2)
    others = train.grid(base, learning_rate=[3e-3], weight_decay=[0.0, 1e-3], temperature=[1, 5])
    return [
        base,
        dataclasses.replace(base, optimizer="schedule_free", schedule="constant"),
        *others,
        *train.grid(base, seed=[1, 2]),
        tiny.recipe(teacher, policy="mix", epochs=3, warmup_steps=2, student="bit_r5w16"),
    ]


@pytest.fixture(scope="module")
def taught(recipes: list[Recipe], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """All of them together."""
    runs = train.sweep(recipes, tmp_path_factory.mktemp("sweep"))
    assert all(isinstance(run, Run) for run in runs)
    return [run for run in runs if isinstance(run, Run)]


def assert_equal(run: Run, alone: Run) -> None:
    """The same student, the same course, the same result."""
    assert run.rows == alone.rows
    assert run.record["result"] == alone.record["result"]
    assert (run.directory / "student.npz").read_bytes() == (alone.directory / "student.npz").read_bytes()


@pytest.mark.parametrize("number", [0, 1, 3, 6, 8], ids=["first", "optimiser", "grid", "seed", "architecture"])
def test_a_student_of_a_sweep_equals_the_same_student_alone(
    number: int, taught: list[Run], recipes: list[Recipe], tmp_path: Path
) -> None:
    """Bit for bit: it is moved by the program that would move it alone, over the same batches."""
    assert_equal(taught[number], train.fit(recipes[number], tmp_path))


def test_a_sweep_asks_the_teacher_once(recipes: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight students, twelve steps, twelve batches; three at a time it takes three times as many."""
    made = []
    monkeypatch.setattr(step, "teach", counted(step.teach, made))
    train.sweep(recipes, tmp_path / "one")
    assert len(made) == 12
    train.sweep(recipes, tmp_path / "three", students_per_step=3)
    assert len(made) == 12 + 36


def counted(teach, made: list):
    """`step.teach` that notes every batch."""

    def counting(*about):
        batch = teach(*about)
        return lambda *arguments: (made.append(about), batch(*arguments))[1]

    return counting


def test_each_student_has_a_record_of_its_own(taught: list[Run], recipes: list[Recipe]) -> None:
    """Its own recipe and folder, and how many it shared its batches with."""
    assert len({run.directory for run in taught}) == len(recipes) == 9
    for run, recipe in zip(taught, recipes, strict=True):
        record = json.loads((run.directory / "run.json").read_text())
        assert record["recipe"]["learning_rate"] == recipe.learning_rate and record["students_per_step"] == 9


@pytest.mark.parametrize("rate", [1e38, 3e38], ids=["loss", "answers"])
def test_a_student_that_diverges_is_dropped_and_the_others_go_on(
    rate: float, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told at once, no record of it, and the neighbour ends with the numbers it has alone."""
    good = tiny.recipe(teacher, epochs=3, evaluations=12)
    bad = dataclasses.replace(good, learning_rate=rate)
    for reused in (False, True):  # a second try says the same
        error, run = train.sweep([bad, good], tmp_path)
        assert isinstance(error, DistillError) and f"lower learning_rate (now {rate:g})" in str(error)
        assert isinstance(run, Run) and run.reused == reused
    assert capsys.readouterr().out.count("The other students go on") == 1
    assert_equal(run, train.fit(good, tmp_path / "alone"))
    assert len(list(tmp_path.glob("*/*/run.json"))) == 1


def poisoned(learn: Callable, rate: float, number: int) -> Callable:
    """`step.learn` with an update that spoils one parameter of the students of a learning rate; losses stay."""

    def learning_with_it(*arguments) -> Callable:
        moved = learn(*arguments)

        def poison(state: step.State, settings: step.Settings, batch: step.Batch) -> step.State:
            state = moved(state, settings, batch)
            if float(settings.learning_rate) != np.float32(rate) or int(state.step) != number:
                return state
            kernel = state.params["head"]["kernel"].at[0, 0].set(np.nan)
            return state._replace(params=state.params | {"head": state.params["head"] | {"kernel": kernel}})

        return poison

    return learning_with_it


def test_a_parameter_that_is_not_a_number_ends_its_student_alone(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update before a report spoils it, so that all losses are finite; with others or without."""
    good, bad = (tiny.recipe(teacher, epochs=3, learning_rate=rate) for rate in (1e-2, 2e-2))
    expected = train.fit(good, tmp_path / "alone")
    monkeypatch.setattr(step, "learn", poisoned(step.learn, 2e-2, 12))
    with pytest.raises(DistillError, match=r"the student's logits are not finite by step 12; lower.*now 0\.02"):
        train.fit(bad, tmp_path / "poisoned")
    run, error = train.sweep([good, bad], tmp_path)
    assert isinstance(error, DistillError) and "not finite by step 12" in str(error) and "\n" not in str(error)
    assert isinstance(run, Run)
    assert_equal(run, expected)


def test_a_student_that_fails_its_last_exam_ends_alone(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SoftLabels to validation images were finite at every report, those to test images are not."""
    good, bad = (tiny.recipe(teacher, epochs=3, learning_rate=rate) for rate in (1e-2, 2e-2))
    expected, metrics = train.fit(good, tmp_path / "alone"), Task.evaluate

    def judge(task: Task, variables: dict, split: str) -> dict[str, float]:
        if task.recipe == bad and split == "test":
            variables = jax.tree.map(lambda leaf: leaf * np.nan, variables)
        return metrics(task, variables, split)

    monkeypatch.setattr(Task, "evaluate", judge)
    error, run = train.sweep([bad, good], tmp_path)
    assert isinstance(error, DistillError) and "the student's logits are not finite by step 12" in str(error)
    assert isinstance(run, Run)
    assert_equal(run, expected)
    assert len(list(tmp_path.glob("*/*/run.json"))) == len(list(tmp_path.glob("*/*/student.npz"))) == 1


def test_what_ended_is_told_apart(taught: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    """Some errors are printed; where nobody came to the end the first one is raised."""
    assert train.finished([taught[0], DistillError("the loss is nan"), taught[1]]) == taught[:2]
    assert capsys.readouterr().out.splitlines() == ["the loss is nan", "2 of 3 students came to the end."]
    with pytest.raises(DistillError, match="first"):
        train.finished([DistillError("first"), DistillError("second")])


def test_a_student_is_judged_and_kept_at_what_its_optimiser_averages(
    recipes: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where its last step was taken: with zeros for an average it says the same in every row."""
    monkeypatch.setattr(optim, "averaged", lambda params, _: jax.tree.map(np.zeros_like, params))
    run = train.fit(recipes[1], tmp_path)
    assert not any(leaf.any() for leaf in jax.tree.leaves(run.variables))
    assert len({row["validation_kl"] for row in run.rows}) == 1


def test_a_broken_sweep_goes_on_where_each_student_was(
    recipes: list[Recipe], taught: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two checkpoints, so that one student is ahead; a finished one is reused."""
    some = recipes[:3]
    train.fit(some[2], tmp_path)
    saved = []

    def save_then_stop(*arguments) -> None:
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(int(arguments[1].step))
        original(*arguments)

    original = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train.sweep(some, tmp_path, checkpoint_seconds=0)
    assert saved == [1, 1, 2]  # the first student is one step ahead
    monkeypatch.setattr(checkpoint, "save", original)
    runs = train.sweep(some, tmp_path)
    for run, expected in zip(runs, taught, strict=False):
        assert isinstance(run, Run)
        assert_equal(run, expected)
    assert [run.reused for run in runs if isinstance(run, Run)] == [False, False, True]


@dataclasses.dataclass
class Timed:
    """A student whose checkpoint takes some seconds of a clock."""

    clock: list[float]
    cost: float
    saved: float = 0.0
    state: int = 0
    times: list[float] = dataclasses.field(default_factory=list)

    def save(self) -> None:
        self.clock[0] += self.cost
        self.saved = self.clock[0]
        self.times.append(self.saved)


@pytest.mark.parametrize(("cost", "pause"), [(0.005, 62), (0.14, 1_300)])
def test_a_sweep_saves_each_student_as_often_as_the_budget_allows(
    cost: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a minute, as a run alone does, if 80 checkpoints are 1 % of that, else in turn; never more than 1 %."""
    clock = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    students, spent = [Timed(clock, cost) for _ in range(80)], 0.0
    for _ in range(4_000):  # steps of a second
        clock[0] += 1.0
        spent += loop.save_due(students, 60.0, loop.CHECKPOINT_SHARE * clock[0] - spent)  # type: ignore[arg-type]
        assert spent <= loop.CHECKPOINT_SHARE * clock[0] + cost
    for timed in students:
        assert max(np.diff([0.0, *timed.times])) <= pause, "nobody waits for ever"
    assert loop.save_due(students, 0.0, float("inf")) == pytest.approx(80 * cost), "0 seconds save after every step"


def test_what_cannot_share_batches_is_taught_apart(teacher: Path, tmp_path: Path) -> None:
    """Another policy, another length or another order of views."""
    several = [
        tiny.recipe(teacher, epochs=3),
        tiny.recipe(teacher, epochs=3, policy="mix"),
        tiny.recipe(teacher, epochs=4),
        tiny.recipe(teacher, epochs=3, seed=4),
    ]
    runs = train.sweep(several, tmp_path)
    assert [run.record["students_per_step"] for run in runs if isinstance(run, Run)] == [1, 1, 1, 1]


def test_a_fixed_mean_over_crops_depends_on_the_temperature(teacher: Path) -> None:
    """Its outputs are means at the loss's temperature, so students of two temperatures cannot share them."""
    one, two = (
        setup.prepare(tiny.recipe(teacher, policy="fix/ic_ens", temperature=temperature)) for temperature in (1, 2)
    )
    assert one.shared_batches != two.shared_batches
    one, two = (setup.prepare(tiny.recipe(teacher, policy="fix/cc", temperature=temperature)) for temperature in (1, 2))
    assert one.shared_batches == two.shared_batches
    np.testing.assert_array_equal(one.fixed_targets(), two.fixed_targets())


@pytest.mark.parametrize("policy", ["fix/cc", "same/ic"])
def test_a_mean_of_probabilities_depends_on_the_temperature(policy: str, teacher: Path, tmp_path: Path) -> None:
    """Several teachers, fixed or not: their mean is taken at the loss's temperature."""
    several = f"{teacher} + {shutil.copy(teacher, tmp_path / 'another.npz')}"
    ids = {
        (mean, temperature): setup.prepare(
            tiny.recipe(several, policy=policy, temperature=temperature, ensemble=mean)
        ).shared_batches
        for mean in ("logits", "probabilities")
        for temperature in (1, 2)
    }
    assert ids["logits", 1] == ids["logits", 2] and ids["probabilities", 1] != ids["probabilities", 2]


def test_how_many_are_taught_together_follows_from_memory(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the memory for parameters and optimiser state, and always at least one student."""
    task = setup.prepare(tiny.recipe(teacher))
    monkeypatch.setattr(sweeps, "_memory", lambda: 0)
    assert sweeps.affordable(task) == 1
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(step.initial_state(task.student, 0, (8, 8, 1))))
    monkeypatch.setattr(sweeps, "_memory", lambda: 20 * size)
    assert sweeps.affordable(task) == 10


def test_an_empty_sweep_is_told(teacher: Path, tmp_path: Path) -> None:
    """A size below one, and no recipe, teach nobody."""
    with pytest.raises(DistillError, match="there is nothing to run: name at least one policy"):
        train.sweep([], tmp_path)
    with pytest.raises(DistillError, match="students_per_step must be at least 1, got 0"):
        train.sweep([tiny.recipe(teacher)], tmp_path, students_per_step=0)


def test_the_papers_grid_is_all_of_its_combinations(teacher: Path) -> None:
    """4 x 5 x 4 settings (Table 4's sweep); without a teacher there is no temperature; single axes can be replaced."""
    base = tiny.recipe(teacher)
    found = train.grid(base, "paper")
    assert len(set(found)) == 80 and {recipe.order_seed for recipe in found} == {base.seed}
    assert {recipe.learning_rate for recipe in found} == {3e-4, 1e-3, 3e-3, 1e-2}
    assert len(train.grid(tiny.recipe(teacher, policy="labels"), "paper")) == 20
    assert len(train.grid(base, "paper", temperature=[1], weight_decay=None, learning_rate=[])) == 20
    with pytest.raises(DistillError, match="unknown grid 'papre'.*Valid: paper, small"):
        train.grid(base, "papre")

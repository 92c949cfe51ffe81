"""One distillation step, beside the released big_vision code and a plain PyTorch loop, on the same networks and batch.

On a CPU: the paper's networks with few images, and the small networks of the embedded study; on an accelerator the
paper's in bfloat16. Plain PyTorch and big_vision standardise the weights of the frozen teacher in every step; the row
of PyTorch with a folded teacher says how much of a ratio is that. Crops come from the host for the paper's networks, as
in both released pipelines, and are part of the step for the small ones. Every job has its own process and the same
random weights and images; what it computes is compared before it is timed.
"""

import contextlib
import dataclasses
import functools
import os
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from distill_lib import datasets, models, recipes, teachers
from distill_lib.bench import process, timing
from distill_lib.bench.students import drawn, made_up
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import stream
from distill_lib.recipes import Recipe

CHECKED = 2  # images whose logits are compared
ROUNDING = {"float32": 1e-3, "bfloat16": 0.05}  # of logits, relative to the largest
STEPS, WARMUP = 20_000, 1_500  # of the schedule whose first steps are timed
OURS, BIG_VISION = "distill_lib", "big_vision"
PLAIN, FOLDED, COMPILED = "PyTorch, plain", "PyTorch, folded teacher", "PyTorch, compiled"
_COLUMNS = (
    "step", "images/s", "times as long", "share of peak", "student parameters", "teacher parameters", "GMAC",
    "logits differ by", "version",
)  # fmt: skip


class Case(NamedTuple):
    """What is measured: the networks and sizes of a preset, beside peers."""

    name: str
    preset: Sequence[str]
    changes: dict[str, Any]
    peers: Sequence[str]
    calls: int  # steps a round
    students: int = 1  # that share a teacher here; peers take as many runs
    accelerator: bool = False  # whether it wants one, or none

    def recipe(self, batch: int) -> Recipe:
        """The preset, with another batch if it is not 0."""
        return recipes.get(*self.preset, **self.changes | ({"batch_size": batch} if batch else {}))


_FILE = Path(__file__).parents[1] / "data" / "step_cases.toml"
CASES = {name: Case(**about) for name, about in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()}


def measure(
    rounds: int = 7,
    torch: str | None = None,
    big_vision: str | None = None,
    big_vision_python: str | None = None,
    cases: Sequence[str] = tuple(CASES),
    batch: int = 0,
) -> timing.Rows:
    """Times a step of each case in this library and in its peers, in turn.

    `--torch` names a Python that has PyTorch; `--big-vision` a checkout of it, and `--big-vision-python` a Python that
    has what it imports (this JAX, Flax and Optax, einops, ml_collections, absl-py, TensorFlow and its data sets).

    Returns: for each case and program seconds a step of all its students, images a second, how many times as long as
    this library's step, the share of the measured peak, and what says that the work is the same.
    """
    process.check_python(torch, "--torch")
    process.check_python(big_vision_python, "--big-vision-python")
    if big_vision and not Path(big_vision, "big_vision", "models", "bit_paper.py").is_file():
        raise DistillError(f"there is no checkout of big_vision at {big_vision}: name one, or leave it out.")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the accelerator
    places = dict.fromkeys((PLAIN, FOLDED, COMPILED), (torch, "--torch")) | {OURS: (sys.executable, "")}
    places[BIG_VISION] = (big_vision_python, "--big-vision-python") if big_vision else (None, "--big-vision")
    here, rows = jax.default_backend() != "cpu", list[dict[str, Any]]()
    for case in (CASES[name] for name in cases):
        recipe, table = case.recipe(batch), dict[str, dict[str, Any]]()
        reason = "not run: no accelerator here" if case.accelerator else "not run: for CPUs"
        for form in (OURS, *case.peers):
            dtype = "float32" if form == BIG_VISION else recipe.dtype  # as it is released
            about = {"case": case.name, "form": form, "images": recipe.batch_size, "side": recipe.resolution}
            table[form] = about | {"dtype": dtype} | dict.fromkeys(_COLUMNS) | {"step": reason}
        if case.accelerator == here:
            _fill(table, case, recipe, places, str(Path(big_vision or "").absolute()), rounds)
        rows += table.values()
    return rows


study = functools.partial(measure, cases=("mix_8", "same_8"))  # as a user pays for eight students
Places = dict[str, tuple[str | None, str]]  # by form: its interpreter, and the option that names it


def _fill(rows: dict[str, Any], case: Case, recipe: Recipe, places: Places, checkout: str, rounds: int) -> None:
    jobs: dict[str, process.Job] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        about = describe(case, recipe, Path(folder)) | {"checkout": checkout}
        for form, row in rows.items():
            python, option = places[form]
            if python is None:
                row["step"] = f"not run: name a Python that has it: {option}"
                continue
            module = {OURS: "distill_step", BIG_VISION: "big_vision_step"}.get(form, "torch_step")
            try:
                jobs[form] = stack.enter_context(process.Job(python, module, about | {"form": form}, option))
            except DistillError as error:
                if form != COMPILED:  # wants a compiler of its own, which need not be there
                    raise
                row["step"] = f"not run: {error}"
                continue
            row["logits differ by"] = difference(case, recipe.dtype, form, jobs[OURS].facts, jobs[form].facts)
        runs = {form: 1 if form == OURS else case.students for form in jobs}
        spent = process.in_turn(jobs, {form: case.calls * runs[form] for form in jobs}, rounds)
    steps = {form: timing.summary(runs[form] * wall for wall, _ in spent[form]) for form in jobs}
    images, ours = recipe.batch_size * case.students, jobs[OURS].facts
    for form, step in steps.items():
        asked = recipe.batch_size if form == OURS else images  # they ask their teacher once
        work = 3 * images * ours["macs"]["student"] + asked * ours["macs"].get("teacher", 0)
        rows[form] |= {"step": step, "images/s": images / step.median, "GMAC": work / 1e9}
        rows[form] |= {"times as long": step.median / steps[OURS].median, "version": jobs[form].facts["version"]}
        rows[form] |= {"share of peak": 2 * work / step.median / ours["peak"]}
        rows[form] |= {f"{role} parameters": count for role, count in ours["parameters"].items()}


def describe(case: Case, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What jobs are told of a case: networks as numbers, and files with their weights and with images; all random."""
    draw, dataset, side = np.random.default_rng(0), datasets.get(recipe.dataset), recipe.resolution
    renders, start = dataset.origin == "embedded", drawn(recipe, recipe.student, folder / "student.npz")
    names, roles = {"student": recipe.student}, {}
    if recipe.has_teacher:
        names["teacher"], _ = teachers.network(recipe.teacher)
    recipe = made_up(recipe, folder, steps=STEPS, start=str(start), warmup_steps=WARMUP)
    for role, name in names.items():
        model: Any = models.create(name, dataset.num_classes)
        numbers = {field: getattr(model, field) for field in ("stages", "width", "groups", "stem")}
        roles[role] = {"name": name, "weights": str(folder / f"{role}.npz")} | numbers
    count = recipe.batch_size * (8 if renders else 1)
    np.save(folder / "images.npy", draw.integers(0, 256, (count, side, side, dataset.channels), np.uint8))
    # A grey frame, because big_vision pads its max-pool with -infinity and this library with zeros.
    frame = side // 16
    inner = draw.uniform(-1, 1, (CHECKED, side - 2 * frame, side - 2 * frame, dataset.channels)).astype(np.float32)
    np.save(folder / "check.npy", np.pad(inner, ((0, 0), (frame, frame), (frame, frame), (0, 0))))
    facts = dataclasses.asdict(recipe) | {name: str(folder / f"{name}.npy") for name in ("images", "check")}
    facts |= {"classes": dataset.num_classes, "channels": dataset.channels, "renders": renders, "steps": STEPS}
    return facts | {"roles": roles, "students": case.students, "threads": stream.cores()}


def difference(case: Case, dtype: str, form: str, ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest difference of logits, relative to the largest; DistillError if devices differ, or these by too much."""
    problem, largest = f"{form} does other work in {case.name}", 0.0
    if theirs["device"] != ours["device"]:
        raise DistillError(f"{problem}: device {theirs['device']} instead of {ours['device']}.")
    for role, own in ours["logits"].items():
        gap = float(np.abs(np.subtract(theirs["logits"][role], own)).max() / np.abs(own).max())
        if not gap <= ROUNDING[dtype]:  # neither is a NaN
            raise DistillError(f"{problem}: its logits differ by {gap:.2g}.")
        largest = max(largest, gap)
    return largest

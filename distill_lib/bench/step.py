"""One distillation step, beside the released big_vision code and a plain PyTorch loop, on the same networks and batch.

On a CPU: the paper's networks with few images, so that a step takes seconds, and the small networks of the embedded
study. On an accelerator: the paper's networks in bfloat16. Plain PyTorch and big_vision standardise the weights of the
frozen teacher in every step. The row of PyTorch with a folded teacher, as this library has it, says how much of a ratio
is that, and how much is the speed of the compiled programs.

Crops come from the host for the paper's networks, as in both released pipelines: mixup, both networks and the optimiser
are timed. For the small ones the images lie on the device, and the crop, mirroring and mixup are part of the step.
Every job has its own process and the same random weights and images; what it computes is compared before it is timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_lib import datasets, models, recipes
from distill_lib.bench import process, programs, timing
from distill_lib.bench.students import drawn, made_up
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import stream
from distill_lib.recipes import Recipe

CHECKED = 2  # images whose logits are compared
ROUNDING = {"float32": 1e-3, "bfloat16": 0.05}  # of logits, relative to the largest
OURS, BIG_VISION = "distill_lib", "big_vision"
PLAIN, FOLDED, COMPILED = "PyTorch, plain", "PyTorch, folded teacher", "PyTorch, compiled"


@dataclass(frozen=True)
class Case:
    """What is measured: networks and sizes of a preset.

    Attributes:
        name: in tables.
        preset: data set, variant, and what is changed.
        peers: what it is timed beside.
        calls: steps in each round.
        students: that share a teacher here; peers take as many runs.
        accelerator: whether the case wants one, or wants none.
    """

    name: str
    preset: tuple[str, str, dict[str, Any]]
    peers: tuple[str, ...]
    calls: int
    students: int = 1
    accelerator: bool = False

    def recipe(self, batch: int) -> Recipe:
        """The preset, with another batch if it is not 0."""
        dataset, variant, changes = self.preset
        return recipes.get(dataset, variant, **changes, **({"batch_size": batch} if batch else {}))


Place = tuple[str | None, str]  # an interpreter, and the option that names it
_PAPER, _EMBEDDED = (BIG_VISION, PLAIN, FOLDED), (PLAIN, COMPILED)
CASES = {
    "paper": Case("R152x2 to R50x1", ("flowers", "fast", {"batch_size": 8, "dtype": "float32"}), _PAPER, 1),
    "labels": Case("embedded, labels", ("fashion", "quick", {"policy": "labels"}), _EMBEDDED, 20),
    "mix": Case("embedded, mix", ("fashion", "quick", {"policy": "mix"}), _EMBEDDED, 20),
    "mix_8": Case("embedded, mix, 8 students", ("fashion", "quick", {"policy": "mix"}), (COMPILED,), 5, 8),
    "same_8": Case("embedded, same/ic, 8 students", ("fashion", "quick", {"policy": "same/ic"}), (COMPILED,), 5, 8),
    "accelerator": Case("R152x2 to R50x1", ("flowers", "fast", {"batch_size": 256}), _PAPER, 5, accelerator=True),
}


def measure(
    rounds: int = 7,
    torch: str | None = None,
    big_vision: str | None = None,
    big_vision_python: str | None = None,
    cases: Sequence[str] = tuple(CASES),
    batch: int = 0,
) -> list[dict[str, Any]]:
    """Times a step of each case in this library and in its peers, in turn.

    `--torch` names a Python that has PyTorch; `--big-vision` a checkout of it, and `--big-vision-python` a Python that
    has what it imports (this JAX, Flax and Optax, einops, ml_collections, absl-py, TensorFlow and its data sets).
    `--batch` is for all cases.

    Returns:
        A row for each case and program: seconds a step, or of a step for all students at once, images a second, how
        many times as long as this library's step, the share of the measured peak, and what says that the work is the
        same.
    """
    process.check_python(torch, "--torch")
    process.check_python(big_vision_python, "--big-vision-python")
    if big_vision and not Path(big_vision, "big_vision", "models", "bit_paper.py").is_file():
        raise DistillError(f"there is no checkout of big_vision at {big_vision}: name one, or leave it out.")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the accelerator
    places: dict[str, Place] = dict.fromkeys((PLAIN, FOLDED, COMPILED), (torch, "--torch"))
    places |= {OURS: (sys.executable, ""), BIG_VISION: (big_vision_python, "--big-vision-python")}
    checkout = str(Path(big_vision).absolute()) if big_vision else None
    if checkout is None:
        places[BIG_VISION] = (None, "--big-vision")
    here, rows = jax.default_backend() != "cpu", []
    for case in (CASES[name] for name in cases):
        if case.accelerator == here:
            rows += _rows(case, places, checkout, batch, rounds)
            continue
        reason = "not run: no accelerator here" if case.accelerator else "not run: for CPUs"
        rows += [_row(case, form, case.recipe(batch), reason) for form in (OURS, *case.peers)]
    return rows


study = functools.partial(measure, cases=("mix_8", "same_8"))
"""Eight students as a user pays for them: they share one teacher, beside eight runs of compiled PyTorch."""


def _rows(case: Case, places: dict[str, Place], checkout: str | None, batch: int, rounds: int) -> list[dict[str, Any]]:
    recipe = case.recipe(batch)
    rows = {form: _row(case, form, recipe, "") for form in (OURS, *case.peers)}
    jobs: dict[str, process.Job] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        about = describe(case, recipe, Path(folder)) | {"checkout": checkout}
        for form, row in rows.items():
            python, option = places[form]
            if python is None:
                row["step"] = f"not run: name a Python that has it: {option}"
                continue
            try:
                job = jobs[form] = stack.enter_context(_job(form, python, option, about))
            except DistillError as error:
                if form != COMPILED:  # wants a compiler of its own, which need not be there
                    raise
                row["step"] = f"not run: {error}"
                continue
            row["logits differ by"] = difference(case, recipe.dtype, form, jobs[OURS].facts, job.facts)
            row["version"] = job.facts.get("version", "")
        runs = {form: 1 if form == OURS else case.students for form in jobs}
        spent = process.in_turn(jobs, {form: case.calls * runs[form] for form in jobs}, rounds)
    steps = {form: timing.summary([runs[form] * wall for wall, _ in spent[form]]) for form in jobs}
    images, macs = recipe.batch_size * case.students, jobs[OURS].facts["macs"]
    for form, step in steps.items():
        asked = recipe.batch_size if form == OURS else images  # they ask their teacher once
        work = 3 * images * macs["student"] + asked * macs.get("teacher", 0)
        rows[form] |= {"step": step, "images/s": images / step.median, "GMAC": work / 1e9}
        rows[form]["times as long"] = step.median / steps[OURS].median
        rows[form]["share of peak"] = 2 * work / step.median / jobs[OURS].facts["peak"]
        counts = jobs[form].facts["parameters"]
        rows[form] |= {f"{role} parameters": counts.get(role) for role in ("student", "teacher")}
    return list(rows.values())


def _job(form: str, python: str, option: str, about: dict[str, Any]) -> process.Job:
    module = {OURS: "distill_step", BIG_VISION: "big_vision_step"}.get(form, "torch_step")
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "distill_lib" / "jax")
    given = about | {"form": form.rpartition(", ")[2].split()[0]}
    return process.Job(python, module, given, option, JAX_COMPILATION_CACHE_DIR=cache)


def _row(case: Case, form: str, recipe: Recipe, reason: str) -> dict[str, Any]:
    """A row of the table, of a step that was not run for that reason."""
    row: dict[str, Any] = {"case": case.name, "form": form, "images": recipe.batch_size, "side": recipe.resolution}
    row |= {"dtype": "float32" if form == BIG_VISION else recipe.dtype, "step": reason}  # as big_vision is released
    more = ("images/s", "times as long", "share of peak", "student parameters", "teacher parameters")
    return row | dict.fromkeys((*more, "GMAC", "logits differ by", "version"))


def describe(case: Case, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What jobs are told of a case: networks as numbers, and files with their weights and with images; all random."""
    draw, dataset, side = np.random.default_rng(0), datasets.get(recipe.dataset), recipe.resolution
    shape, renders = (side, side, dataset.channels), programs.resident(recipe)
    names = {"student": recipe.student} | ({"teacher": programs.teacher_model(recipe)[0]} if recipe.has_teacher else {})
    start = drawn(recipe, recipe.student, folder / "student.npz")
    recipe = made_up(recipe, folder, steps=20_000, start=str(start), warmup_steps=1_500)
    roles = {}
    for role, name in names.items():
        model: Any = models.create(name, dataset.num_classes)
        numbers = {field: getattr(model, field) for field in ("stages", "width", "groups", "stem")}
        roles[role] = {"name": name, "weights": str(folder / f"{role}.npz")} | numbers
    count = recipe.batch_size * (8 if renders else 1)
    np.save(folder / "images.npy", draw.integers(0, 256, (count, *shape), np.uint8))
    # A grey frame, because big_vision pads its max-pool with -infinity and this library with zeros.
    frame = side // 16
    inner = draw.uniform(-1, 1, (CHECKED, side - 2 * frame, side - 2 * frame, dataset.channels)).astype(np.float32)
    np.save(folder / "check.npy", np.pad(inner, ((0, 0), (frame, frame), (frame, frame), (0, 0))))
    fields = ("policy", "dtype", "learning_rate", "weight_decay", "temperature", "warmup_steps")
    facts = {field: getattr(recipe, field) for field in fields}
    facts |= {"steps": 20_000, "side": side, "batch": recipe.batch_size, "area": recipe.crop_area}
    facts |= {"classes": dataset.num_classes, "channels": dataset.channels, "renders": renders}
    facts |= {"images": str(folder / "images.npy"), "check": str(folder / "check.npy"), "threads": stream.cores()}
    return facts | {"roles": roles, "students": case.students, "recipe": dataclasses.asdict(recipe)}


def difference(case: Case, dtype: str, form: str, ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest difference of logits of the same images, relative to the largest logit.

    Raises:
        DistillError: if the devices or the networks differ: in parameters, in multiply-accumulates where a peer counts
            them, or in logits by more than rounding.
    """
    for fact in ("device", "parameters", "macs"):
        if theirs.get(fact, ours[fact]) != ours[fact]:
            raise DistillError(f"{form} does other work in {case.name}: {fact} {theirs[fact]} instead of {ours[fact]}.")
    pairs = [(np.array(ours["logits"][role]), np.array(theirs["logits"][role])) for role in ours["logits"]]
    largest = float(np.max([np.abs(other - own).max() / np.abs(own).max() for own, other in pairs]))
    if not largest <= ROUNDING[dtype]:
        raise DistillError(f"{form} does other work in {case.name}: its logits differ by {largest:.2g}.")
    return largest

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
import itertools
import os
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import process, timing
from benchmarks.process import Place
from benchmarks.students import Students, batches_of, drawn, made_up
from distill_lib import datasets, models, recipes, teachers
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import stream
from distill_lib.models import flops
from distill_lib.recipes import Recipe
from distill_lib.report.benchmarks import Rows
from distill_lib.train import setup
from distill_lib.views import Crops

CHECKED = 2  # images whose logits are compared
ROUNDING = {"float32": 1e-3, "bfloat16": 0.05}  # of logits, relative to the largest
STEPS, WARMUP = 20_000, 1_500  # of the schedule whose first steps are timed
OURS, BIG_VISION = "distill_lib", "big_vision"
PLAIN, FOLDED, COMPILED = "PyTorch, plain", "PyTorch, folded teacher", "PyTorch, compiled"
PEAK_SIDE = {"cpu": 1024, "gpu": 8192, "tpu": 8192}  # of the matrices whose product is taken as the device's peak


class Case(NamedTuple):
    """What is measured: the networks and sizes of a preset, beside peers."""

    name: str
    preset: Sequence[str]
    changes: dict[str, Any]
    peers: Sequence[str]
    calls: int  # steps a round
    students: int = 1  # that share a teacher here; peers take as many runs
    accelerator: bool = False  # whether it wants one, or none

    def recipe(self) -> Recipe:
        """The preset with its changes."""
        return recipes.get(*self.preset, **self.changes)


_FILE = Path(__file__).with_name("step_cases.toml")
CASES = {name: Case(**about) for name, about in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()}


def measure(
    rounds: int = 7,
    torch: str | None = None,
    big_vision: str | None = None,
    big_vision_python: str | None = None,
    cases: Sequence[str] = tuple(CASES),
) -> Rows:
    """Times a step of each case in this library and in its peers, in turn.

    `--torch` names a Python that has PyTorch; `--big-vision` a checkout of it, and `--big-vision-python` a Python that
    has what it imports (this JAX, Flax and Optax, einops, ml_collections, absl-py, TensorFlow and its data sets).

    Returns: for each case and program seconds a step of all its students, images a second, how many times as long as
    this library's step, the share of the measured peak, and what says that the work is the same.
    """
    if big_vision and not Path(big_vision, "big_vision", "models", "bit_paper.py").is_file():
        raise DistillError(f"there is no checkout of big_vision at {big_vision}: name one, or leave it out.")
    places = {OURS: Place(__name__)} | dict.fromkeys((PLAIN, FOLDED, COMPILED), Place("torch_step", torch, "--torch"))
    checkout, option = Path(big_vision or "").absolute(), "--big-vision-python" if big_vision else "--big-vision"
    places[BIG_VISION] = Place("big_vision_step", big_vision_python if big_vision else None, option)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the accelerator
    chosen = [CASES[name] for name in cases if CASES[name].accelerator == (jax.default_backend() != "cpu")]
    if not chosen:
        raise DistillError(f"the cases {', '.join(cases)} are for another device than {jax.default_backend()}.")
    return [row for case in chosen for row in _rows(case, places, checkout, rounds)]


study = functools.partial(measure, cases=("mix_8", "same_8"))  # as a user pays for eight students


def _rows(case: Case, places: dict[str, Place], checkout: Path, rounds: int) -> Rows:
    recipe, own = case.recipe(), {form: places[form] for form in (OURS, *case.peers)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        about = describe(case, recipe, Path(folder)) | {"checkout": str(checkout)}
        jobs = process.start(stack, own, about, optional=COMPILED)  # wants a compiler, which need not be there
        ours = jobs[OURS].facts
        differences = {form: difference(case, recipe.dtype, form, ours, job.facts) for form, job in jobs.items()}
        runs = {form: 1 if form == OURS else case.students for form in jobs}
        spent = process.in_turn(jobs, {form: case.calls * runs[form] for form in jobs}, rounds)
    steps = {form: timing.summary(runs[form] * wall for wall, _ in spent[form]) for form in jobs}
    images, rows = recipe.batch_size * case.students, []
    for form, step in steps.items():
        asked = recipe.batch_size if form == OURS else images  # they ask their teacher once
        work = 3 * images * ours["macs"]["student"] + asked * ours["macs"].get("teacher", 0)
        row = {"case": case.name, "form": form, "images": recipe.batch_size, "side": recipe.resolution}
        row |= {"dtype": "float32" if form == BIG_VISION else recipe.dtype}  # as it is released
        row |= {"step": step, "images/s": images / step.median, "times as long": step.median / steps[OURS].median}
        row |= {"share of peak": 2 * work / step.median / ours["peak"], "logits differ by": differences[form]}
        rows.append(row | {"version": jobs[form].facts["version"]})
    return rows


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


def prepare(case: dict[str, Any]) -> tuple[Callable[[], None], dict[str, Any]]:
    """This library's step, as the training loop does it, in a process of its own: a batch, then the move of each.

    Returns the function of a step, and facts: version, device, logits of the check images, multiply-adds of networks,
    and the measured peak in FLOP/s.
    """
    fields = {field.name: case[field.name] for field in dataclasses.fields(Recipe)}
    task = setup.prepare(Recipe(**fields | {"crop_area": tuple(case["crop_area"])}))
    nets = {role: models.create(about["name"], task.num_classes) for role, about in case["roles"].items()}
    check = np.load(case["check"])
    logits = {"student": jax.jit(models.logits, static_argnums=0)(task.student, task.start, check)}
    if task.teacher:
        logits["teacher"] = jax.jit(task.teacher.logits)(check)
    side = PEAK_SIDE[jax.default_backend()]
    ones, product = jnp.ones((side, side), task.recipe.dtype), jax.jit(jnp.matmul)
    facts = {
        "version": f"jax {jax.__version__}",
        "device": jax.default_backend(),
        "macs": {role: flops.macs(net, task.image_shape) for role, net in nets.items()},
        "logits": {role: np.asarray(each).tolist() for role, each in logits.items()},
        "peak": 2 * side**3 / min(timing.seconds(lambda: product(ones, ones).block_until_ready()) for _ in range(11)),
    }
    images, given = np.load(case["images"]), None
    if not case["renders"]:  # the host has made crops, and mixup alone is part of the step
        crops = Crops(images, {}, np.arange(len(images)) % task.num_classes)
        given = batches_of(task, (jax.device_put(crops) for _ in itertools.count()))
    return Students(task, case["students"], given).run, facts

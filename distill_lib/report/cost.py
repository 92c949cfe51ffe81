"""What a recipe costs: steps, operations of teacher and student, and hours on a named device.

Hours come from the images a second of a record of the same networks and sizes on that device, evaluation included, else
from the operations, the device's peak for the recipe's dtype and a stated utilisation. A product in float32 has JAX's
default precision (docs.jax.dev, 201/precision): TensorFloat-32 on NVIDIA's GPUs since the A100, half as fast as
bfloat16; float32 on older ones; one pass of bfloat16 on a TPU.
"""

import csv
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from distill_lib import datasets, models, recipes, teachers, views
from distill_lib.errors import DistillError, unknown
from distill_lib.experiments import matching
from distill_lib.models import flops
from distill_lib.recipes import Recipe, presets
from distill_lib.report import benchmarks

DEVICE = "H100 SXM"  # that hours are given for if none is named
UTILISATION = 0.45  # the share of the stated peak that this project aims at in a step
STUDENT_PASSES = 3  # one forward, and two products of the same size for each of them backward


class Device(NamedTuple):
    """Floating-point operations a second of dense matrix products by dtype, of a TPU of a chip, and their source."""

    bfloat16: float
    float32: float  #: at JAX's default precision
    source: str

    def peak(self, dtype: str) -> float:
        """That of a dtype, "bfloat16" or "float32"."""
        return float(getattr(self, dtype))


FILE = Path(__file__).parents[1] / "data" / "devices.csv"
DEVICES = {
    name: Device(float(half), float(full), source)
    for name, half, full, source in [*csv.reader(FILE.read_text(encoding="utf-8").splitlines())][1:]
}  # by the names that their makers write


def peaks(name: str) -> Device:
    """Looks a device up by name; raises DistillError if it is none of `DEVICES`."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return DEVICES[name]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run takes: steps, and floating-point operations of both networks, two for each multiply-accumulate."""

    steps: int
    teacher: float
    student: float
    hours: float | None  #: of a device; None where no peak is known
    measured: bool = False  #: whether a record tells the hours

    @property
    def hours_text(self) -> str:
        """Device-hours as text, with a star where they were measured."""
        if self.hours is None:
            return "unknown"
        text = "<0.01" if self.hours < 0.01 else f"{self.hours:,.{0 if self.hours >= 10 else 2}f}"
        return f"{text}{'*' if self.measured else ''}"


def of_recipe(recipe: Recipe, device: str = DEVICE, runs: pd.DataFrame | None = None) -> Cost:
    """What a run would take on one of `DEVICES`, or one of `runs`, rows of `records.read`, whose speeds come first.

    A fixed teacher answers once for each image and crop. DistillError if device, teacher or image count is unknown.
    """
    recorded = set() if runs is None or "device" not in runs else set(runs["device"])
    if device not in DEVICES and device not in recorded:
        raise unknown("device", device, [*DEVICES, *sorted(recorded)])
    images, policy = training_images(recipe), views.policy(recipe.policy)
    steps = recipe.steps(images)
    rendered = answers = steps * recipe.batch_size
    if policy.relation == "fixed":
        answers = images * (recipe.ensemble_crops if policy.teacher == "inception_mean" else 1)
    teacher, student = answers * teacher_operations(recipe), rendered * student_operations(recipe)
    hours, speed = None, None if runs is None else _images_per_second(recipe, device, runs)
    if speed is not None:
        hours = rendered / speed / 3600
    elif device in DEVICES:
        hours = device_hours(teacher + student, device, recipe.dtype)
    return Cost(steps=steps, teacher=teacher, student=student, hours=hours, measured=speed is not None)


def of_evaluation(network: str, dataset: str, device: str = DEVICE) -> Cost:
    """Says what judging a published or embedded network on a test split would take, in float32; arguments are names."""
    recipe = recipes.get(dataset, presets.FOREIGN[0], policy="same/ic", teacher=network)
    answers = datasets.get(dataset).counts["test"] * teacher_operations(recipe)
    return Cost(steps=0, teacher=answers, student=0.0, hours=device_hours(answers, device, "float32"))


def device_hours(operations: float, device: str, dtype: str) -> float:
    """Hours times devices that operations take at `UTILISATION`; DistillError for an unknown device."""
    return operations / (peaks(device).peak(dtype) * UTILISATION) / 3600


def operations_per_image(recipe: Recipe) -> float:
    """Floating-point operations that one image costs in a step; a teacher that is not asked there costs nothing."""
    asked = views.policy(recipe.policy).relation not in ("none", "fixed")
    return student_operations(recipe) + (teacher_operations(recipe) if asked else 0.0)


def student_operations(recipe: Recipe) -> float:
    """Floating-point operations of a student that learns from one image: three times those of its answer."""
    return 2.0 * STUDENT_PASSES * _counted(recipe, recipe.student, recipe.resolution)


def teacher_operations(recipe: Recipe) -> float:
    """Those of a teacher's answer, 0 without one; DistillError if it is neither embedded nor published, so unknown."""
    total = 0
    for name, side in teachers.parts(recipe.teacher) if recipe.has_teacher else ():
        model, own = teachers.network(name)
        total += _counted(recipe, model, side or own or recipe.resolution)
    return 2.0 * total


def student_parameters(recipe: Recipe) -> int:
    """Numbers that a recipe's student learns."""
    return _counted(recipe, recipe.student, recipe.resolution, flops.parameters)


def _counted(recipe: Recipe, model: str, side: int, count: Callable[..., int] = flops.macs) -> int:
    dataset = datasets.get(recipe.dataset)
    return count(models.create(model, dataset.num_classes), (side, side, dataset.channels))


def training_images(recipe: Recipe) -> int:
    """How many images a recipe's student learns from; raises DistillError where only the prepared set tells."""
    dataset = datasets.get(recipe.transfer_set or recipe.dataset)
    count = datasets.training_images(dataset, recipe.train_images, mock=recipe.variant == "smoke")
    if count is None:
        raise DistillError(f"the number of training images of {dataset.name} is known once it is prepared.")
    return count


def table(recipe: Recipe, counts: Sequence[int] = (8, 64, 512)) -> pd.DataFrame:
    """A row a device: hours, days on so many, and what the smallest number of them wants; DistillError if unknown."""
    rows, operations = [], operations_per_image(recipe)
    for name, device in DEVICES.items():
        total = recipe.steps(training_images(recipe)) * recipe.batch_size * operations
        hours, peak = device_hours(total, name, recipe.dtype), device.peak(recipe.dtype)
        speed = peak * UTILISATION * counts[0] / operations
        row = {"device": name, "peak (TFLOP/s)": f"{peak / 1e12:,.0f}", "device-hours": f"{hours:,.0f}"}
        row |= {f"days on {count}": f"{hours / count / 24:,.1f}" for count in counts}
        row |= {f"images/s on {counts[0]}": f"{speed:,.0f}", "host cores for them": host_cores(recipe, speed)}
        row[f"memory on {counts[0]}"] = memory(recipe, name, counts[0])
        rows.append(row | {"source of the peak": device.source})
    return pd.DataFrame(rows)


def host_cores(recipe: Recipe, images_per_second: float) -> str:
    """Cores that decode so many images a second by the record `input`, for JPEGs of lower "to" higher quality."""
    if datasets.fits(datasets.get(recipe.transfer_set or recipe.dataset)):
        return "none"
    cores = sorted({math.ceil(images_per_second / row["images/s"]) for row in benchmarks.rows("input", cores=1)})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((cores[0], cores[-1]))) if cores else "not measured"


def memory(recipe: Recipe, device: str, count: int) -> str:
    """Whether a recipe's step fits into so many devices, by the record `compile`: such as "fits: yes, 21 of 80 GiB"."""
    usual = presets.tables(recipe.dataset)[0] | {"optimizer": "adam"}
    same = ("student", "teacher", "resolution", "batch_size", "optimizer")
    case: dict[str, Any] = {"case": recipe.dataset, "policy": recipe.policy, "dtype": recipe.dtype}
    rows = benchmarks.rows("compile", **case, target=f"{device.removesuffix(' SXM')} x {count}")
    rows = [row for row in rows if row["program"] in ("views and teacher", "student")]
    if not rows or any(getattr(recipe, name) != usual[name] for name in same):
        return "not compiled"
    peak, fits = max(row["peak (GiB)"] for row in rows), all(row["fits"] for row in rows)
    return f"fits: {'yes' if fits else 'no'}, {peak:.1f} of {rows[0]['device (GiB)']:g} GiB"


def _images_per_second(recipe: Recipe, device: str, runs: pd.DataFrame) -> float | None:
    """Median images a second of one device in runs with the same networks, sizes and kind of teacher; None without."""
    if not {"device", "images_per_second", "student", "teacher", "resolution", "policy"} <= set(runs):
        return None
    short = device.removesuffix(" SXM")  # a data sheet's name and what a driver says have this part in common
    runs = runs[runs["device"].str.contains(rf"(?<!\w){re.escape(short)}(?!\w)")]  # an L40 is no L4
    alone = runs["students_per_step"].fillna(1) == 1 if "students_per_step" in runs else True
    relation = views.policy(recipe.policy).relation
    kinds = (relation,) if relation in ("none", "fixed") else ("same", "independent")
    runs = runs[runs["policy"].map(lambda key: views.policy(key).relation in kinds).astype(bool) & alone]
    same = ("student", "resolution", "dtype", "optimizer", *(("teacher",) if recipe.has_teacher else ()))
    for name, value in ({name: getattr(recipe, name) for name in same} | {"stored": None}).items():
        runs = matching.having(runs, name, value)
    speed = float((runs["images_per_second"] / runs.get("device_count", 1)).median())
    return None if math.isnan(speed) else speed

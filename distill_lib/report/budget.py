"""What a preset asks for: steps, operations of teacher and student, and hours on a named device.

Hours come from the images a second of a record where one of the same networks and sizes on that device is at hand, else
from the operations, the device's stated peak for the recipe's dtype and a stated utilisation (see `cost`).
Evaluation and compilation are in the first and not in the second.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_lib import datasets, recipes, views
from distill_lib.errors import unknown
from distill_lib.recipes import Recipe, presets
from distill_lib.report import cost, devices

if TYPE_CHECKING:
    import pandas as pd

DEVICE = "H100 SXM"
"""The device that hours are given for if none is named."""


@dataclass(frozen=True)
class Budget:
    """What a run takes.

    Attributes:
        steps: of training.
        teacher: floating-point operations of its answers, two for each multiply-accumulate.
        student: floating-point operations of its training.
        hours: on one device; None if neither a record nor a peak is known.
        measured: whether the hours come from a record.
    """

    steps: int
    teacher: float
    student: float
    hours: float | None
    measured: bool


def budget(recipe: Recipe, device: str = DEVICE, runs: pd.DataFrame | None = None) -> Budget:
    """Says what a run would take.

    Args:
        recipe: what would run.
        device: a name in `devices.names()`, or as records name a device.
        runs: the table of `records.read`, for measured speeds; None uses operations alone.

    Raises:
        DistillError: if device, teacher or the number of training images is unknown.
    """
    known = {one.name: one for one in devices.DEVICES}
    recorded = set() if runs is None or "device" not in runs else set(runs["device"])
    if device not in known and device not in recorded:
        raise unknown("device", device, [*known, *sorted(recorded)])
    images = cost.training_images(recipe)
    steps = recipe.steps(images)
    teacher, student = _operations(recipe, images, steps)
    if (speed := _measured(recipe, device, runs)) is not None:
        return Budget(steps, teacher, student, steps * recipe.batch_size / speed / 3600, True)
    if device not in known:
        return Budget(steps, teacher, student, None, False)
    peak = known[device].peak(recipe.dtype)
    whole = cost.Estimate(teacher + student, peak, 1, cost.UTILISATION)
    return Budget(steps, teacher, student, whole.device_hours, False)


def judging(network: str, dataset: str, device: str = DEVICE) -> Budget:
    """Says what judging a published or embedded network on a test split would take, in float32.

    Args:
        network: name of a teacher.
        dataset: a data set that it knows.
        device: a name in `devices.names()`.
    """
    recipe = recipes.get(dataset, presets.FOREIGN[0], policy="same/ic", teacher=network)
    images = datasets.get(dataset).counts["test"]
    answers = images * cost.teacher_operations(recipe)
    whole = cost.Estimate(answers, devices.get(device).float32, 1, cost.UTILISATION)
    return Budget(0, answers, 0.0, whole.device_hours, False)


def _operations(recipe: Recipe, images: int, steps: int) -> tuple[float, float]:
    """Operations of teacher and student over a whole run; a fixed teacher answers once for each image and crop."""
    policy, shown = views.policy(recipe.policy), steps * recipe.batch_size
    crops = recipe.ensemble_crops if policy.teacher == "inception_mean" else 1
    answers = images * crops if policy.relation == "fixed" else shown
    return answers * cost.teacher_operations(recipe), shown * cost.student_operations(recipe)


def _measured(recipe: Recipe, device: str, runs: pd.DataFrame | None) -> float | None:
    """Median images a second of one device in runs with the same networks, sizes and kind of teacher; None without."""
    needed = {"device", "images_per_second", "student", "teacher", "resolution", "policy"}
    if runs is None or not needed <= set(runs):
        return None
    short = device.removesuffix(" SXM")  # a data sheet's name and what a driver says have this part in common
    whole = rf"(?<!\w){re.escape(short)}(?!\w)"  # an L40 is no L4
    alike = runs["device"].str.contains(whole) & runs["images_per_second"].notna()
    alike &= (runs["student"] == recipe.student) & (runs["resolution"] == recipe.resolution)
    relation = views.policy(recipe.policy).relation
    kinds = {relation} if relation in ("none", "fixed") else {"same", "independent"}
    alike &= runs["policy"].map(lambda key: views.policy(key).relation in kinds)
    if recipe.has_teacher:
        alike &= runs["teacher"] == recipe.teacher
    if "stored" in runs:  # nobody was asked
        alike &= runs["stored"].isna()
    if "class_size" in runs:
        alike &= runs["class_size"].fillna(1) == 1
    for name, usual in (("dtype", "float32"), ("optimizer", "adam")):
        if name in runs:
            alike &= runs[name].fillna(usual) == getattr(recipe, name)
    found = runs[alike]
    count = found.get("device_count", 1)
    speed = float((found["images_per_second"] / count).median()) if len(found) else math.nan
    return None if math.isnan(speed) else speed

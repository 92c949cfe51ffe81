"""What a recipe would cost on accelerators: from the networks' operations, a stated peak and a stated utilisation.

The peak is the one for the recipe's dtype. What the host has to decode meanwhile is in proportion to a record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_lib import datasets, models, teachers, views, weights
from distill_lib.bench import timing
from distill_lib.errors import DistillError, unknown
from distill_lib.models import flops
from distill_lib.recipes import Recipe, presets
from distill_lib.report.devices import DEVICES, Device
from distill_lib.teachers import published

if TYPE_CHECKING:
    import pandas as pd

UTILISATION = 0.45
"""The share of the stated peak that this project aims at in a step."""
_COMPILED = ("student", "teacher", "resolution", "batch_size")
STUDENT_PASSES = 3  # one forward, and two products of the same size for each of them backward


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        operations: floating-point operations of the whole run, two for each multiply-accumulate.
        peak: floating-point operations a second of one device, for the dtype of the run.
        count: number of these devices.
        utilisation: share of their peak that is reached.
    """

    operations: float
    peak: float
    count: int
    utilisation: float

    @property
    def device_hours(self) -> float:
        """Hours times devices; the same for any number of them, as far as utilisation is."""
        return self.operations / (self.peak * self.utilisation) / 3600

    @property
    def days(self) -> float:
        """Days that pass."""
        return self.device_hours / self.count / 24


def operations_per_image(recipe: Recipe) -> float:
    """Floating-point operations that one image costs in a step; a teacher that is not asked there costs nothing.

    Raises:
        DistillError: as `teacher_operations`.
    """
    asked = views.policy(recipe.policy).relation not in ("none", "fixed")
    return student_operations(recipe) + (teacher_operations(recipe) if asked else 0.0)


def student_operations(recipe: Recipe) -> float:
    """Floating-point operations of a student that learns from one image: three times those of its answer.

    Convolutions and matrix products only, as `flops.macs` counts them.
    """
    dataset = datasets.get(recipe.dataset)
    shape = (recipe.resolution, recipe.resolution, dataset.channels)
    return 2.0 * STUDENT_PASSES * flops.macs(models.create(recipe.student, dataset.num_classes), shape)


def teacher_operations(recipe: Recipe) -> float:
    """Floating-point operations of a teacher's answer to one image, counted likewise; 0 without a teacher.

    Args:
        recipe: its teacher is embedded or published, or several such, joined by " + ".

    Raises:
        DistillError: if a teacher is of another kind: its network is not known without its file.
    """
    if not recipe.has_teacher:
        return 0.0
    dataset = datasets.get(recipe.dataset)
    shape = (recipe.resolution, recipe.resolution, dataset.channels)
    return 2.0 * sum(_teacher_macs(*part, dataset.num_classes, shape) for part in teachers.parts(recipe.teacher))


def estimate(recipe: Recipe, device: Device, count: int, utilisation: float = UTILISATION) -> Estimate:
    """Estimates the steps of a run; evaluations, and a fixed teacher's answers beforehand, are not in it.

    Args:
        recipe: what would run.
        device: on what.
        count: on how many.
        utilisation: share of the peak that a step reaches, from above 0 to 1.

    Raises:
        DistillError: if the number of images, a teacher's network or the utilisation is not usable.
    """
    if not 0 < utilisation <= 1:
        raise DistillError(f"utilisation is a share from above 0 to 1, got {utilisation}.")
    shown = recipe.steps(training_images(recipe)) * recipe.batch_size
    return Estimate(shown * operations_per_image(recipe), device.peak(recipe.dtype), count, utilisation)


def images_per_second(recipe: Recipe, device: Device, count: int, utilisation: float = UTILISATION) -> float:
    """Images that steps want in a second on so many devices."""
    return device.peak(recipe.dtype) * utilisation * count / operations_per_image(recipe)


def host_cores(recipe: Recipe, wanted: float, results: Path | None = None) -> str:
    """Cores of the host that decode and crop so many images a second, by what one core does in the record `input`.

    Args:
        recipe: what would run.
        wanted: images a second.
        results: the results folder; None finds it.

    Returns:
        A number, or two for JPEGs of lower and of higher quality; "none" where the images are on the device, and "not
        measured" without a record.
    """
    if datasets.fits(datasets.get(recipe.transfer_set or recipe.dataset)):
        return "none"
    record = timing.read("input", results)
    rates = {row["images/s"] for row in record["rows"] if row["cores"] == 1} if record else set()
    several = sorted({math.ceil(wanted / rate) for rate in rates})
    return (
        " to ".join(f"{cores:,}" for cores in dict.fromkeys((several[0], several[-1]))) if several else "not measured"
    )


def memory(recipe: Recipe, device: Device, count: int, results: Path | None = None) -> str:
    """Whether the programs of a recipe's step fit into the memory of each device, by the record `compile`.

    Args:
        recipe: what would run. The record's cases are the data sets, with the networks and sizes of most presets.
        device: on what.
        count: on how many.
        results: the results folder; None finds it.

    Returns:
        Such as "fits: yes, 21.7 of 80 GiB", of the larger program; "not compiled" where the record has no such case.
    """
    record, usual = timing.read("compile", results), presets.tables(recipe.dataset)[0]
    common = all(getattr(recipe, name) == usual[name] for name in _COMPILED) and recipe.optimizer == "adam"
    wanted = {"case": recipe.dataset, "policy": recipe.policy, "dtype": recipe.dtype}
    wanted |= {"target": f"{device.name.removesuffix(' SXM')} x {count}"}
    alike = [row for row in (record["rows"] if record else []) if wanted.items() <= row.items()]
    rows = [row for row in alike if row["program"] in ("views and teacher", "student")]
    if not rows or not common:
        return "not compiled"
    peak, fits = max(row["peak (GiB)"] for row in rows), all(row["fits"] for row in rows)
    return f"fits: {'yes' if fits else 'no'}, {peak:.1f} of {rows[0]['device (GiB)']:g} GiB"


def training_images(recipe: Recipe) -> int:
    """How many images a recipe's student learns from; raises DistillError where only the prepared set tells."""
    shown = datasets.get(recipe.transfer_set or recipe.dataset)
    count = datasets.training_images(shown, recipe.train_images, mock=recipe.variant == "smoke")
    if count is None:
        raise DistillError(f"the number of training images of {shown.name} is known once it is prepared.")
    return count


def table(
    recipe: Recipe,
    counts: Sequence[int] = (8, 64, 512),
    utilisation: float = UTILISATION,
    devices: Sequence[Device] = DEVICES,
) -> pd.DataFrame:
    """Device-hours and days on so many devices; what the smallest number of them wants of host and memory: a row each.

    Args:
        recipe: what would run.
        counts: numbers of devices.
        utilisation: share of the peak that a step reaches.
        devices: the rows.
    """
    import pandas as pd

    rows = []
    for device in devices:
        several = [estimate(recipe, device, count, utilisation) for count in counts]
        row = {"device": device.name, "peak (TFLOP/s)": f"{device.peak(recipe.dtype) / 1e12:,.0f}"}
        row |= {"device-hours": f"{several[0].device_hours:,.0f}"}
        row |= {f"days on {one.count}": f"{one.days:,.1f}" for one in several}
        wanted = images_per_second(recipe, device, counts[0], utilisation)
        row |= {f"images/s on {counts[0]}": f"{wanted:,.0f}", "host cores for them": host_cores(recipe, wanted)}
        row[f"memory on {counts[0]}"] = memory(recipe, device, counts[0])
        rows.append(row | {"source of the peak": device.source})
    return pd.DataFrame(rows)


def _teacher_macs(name: str, side: int | None, num_classes: int, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one answer; a teacher that wants a size of its own gets it."""
    if name in teachers.EMBEDDED:
        facts = weights.load_metadata(teachers.EMBEDDED[name])
        model, own = facts["model"], facts.get("resolution") or shape[0]
    elif name in published.CHECKPOINTS:
        model, own = published.CHECKPOINTS[name].model, published.CHECKPOINTS[name].resolution
    else:
        raise unknown("teacher", name, [*teachers.EMBEDDED, *published.CHECKPOINTS])
    return flops.macs(models.create(model, num_classes), (side or own, side or own, shape[2]))

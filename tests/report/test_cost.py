"""Estimates: operations counted by hand, and hours that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_lib import models, recipes
from distill_lib.bench import timing
from distill_lib.errors import DistillError
from distill_lib.models import flops
from distill_lib.report import budget, cost, devices

MADE_UP = devices.Device("made up", 1e15, 2.5e14, "nobody")


def test_a_step_costs_the_teacher_once_and_the_student_three_times() -> None:
    """Two operations for each multiply-accumulate; labels and fixed teachers cost no teacher in a step."""
    student, teacher = (flops.macs(models.create(name, 10), (28, 28, 1)) for name in ("bit_r11w8", "bit_r11w24"))
    taught, alone, fixed = (recipes.get("fashion", "quick", policy=policy) for policy in ("mix", "labels", "fix/cc"))
    assert cost.operations_per_image(taught) == 2 * (3 * student + teacher)
    assert cost.operations_per_image(alone) == cost.operations_per_image(fixed) == 6 * student


def test_a_teacher_of_its_own_size_is_counted_at_that_size() -> None:
    """Two teachers at two resolutions look at one view."""
    one, both = (recipes.get("imagenet", "long", teacher=name) for name in ("R50x1_224", "R50x1_224 + R50x1_160"))
    added = cost.operations_per_image(both) - cost.operations_per_image(one)
    assert added == 2 * flops.macs(models.create("bit_r50x1", 1000), (160, 160, 3))
    small, large = (recipes.get("fashion", "quick", teacher=name) for name in ("fashion", "fashion@36"))
    added = cost.operations_per_image(large) - cost.operations_per_image(small)
    network = models.create("bit_r11w24", 10)
    assert added == 2 * (flops.macs(network, (36, 36, 1)) - flops.macs(network, (28, 28, 1)))


def test_images_of_another_set_are_counted() -> None:
    """As many steps as the schedule has on them."""
    assert cost.training_images(recipes.get("pets", "from_food_1000")) == 68_175
    few = (recipes.get("fashion", "medium", train_images=n) for n in (None, 255))
    assert [cost.training_images(recipe) for recipe in few] == [1_020, 255]
    recipe = recipes.get("pets", "from_food_1000")
    shown = recipe.steps(68_175) * recipe.batch_size
    operations = cost.estimate(recipe, MADE_UP, 1).operations
    assert operations == shown * cost.operations_per_image(recipe)


def test_hours_follow_from_operations_peak_and_utilisation() -> None:
    """More devices take fewer days and as many device-hours; half the utilisation takes twice as long."""
    recipe = _light()
    eight, many = (cost.estimate(recipe, MADE_UP, count, 0.5) for count in (8, 64))
    shown = recipe.steps(1_255_544) * recipe.batch_size
    assert eight.operations == shown * cost.operations_per_image(recipe)
    assert eight.device_hours == pytest.approx(eight.operations / 5e14 / 3600)
    assert many.device_hours == eight.device_hours and eight.days == pytest.approx(8 * many.days)
    (row,) = cost.table(recipe, (8, 64), 0.25, [MADE_UP]).to_dict("records")
    assert row["days on 64"] == f"{2 * many.days:,.1f}"


def test_a_recipe_is_priced_at_the_peak_of_its_dtype() -> None:
    """The paper's presets compute in bfloat16, which is twice as fast on an H100; the embedded set's are float32."""
    names = ("flowers", "pets", "food", "sun397", "imagenet")
    assert {recipes.get(name, variant).dtype for name in names for variant in ("long", "teacher")} == {"bfloat16"}
    assert {recipes.get(*preset).dtype for preset in (("fashion", "long"), ("flowers", "smoke"))} == {"float32"}
    half, full = (cost.estimate(_light(dtype), devices.get("H100 SXM"), 8) for dtype in models.DTYPES[::-1])
    assert full.device_hours == pytest.approx(2 * half.device_hours) and full.operations == half.operations
    assert cost.estimate(_light("float32"), MADE_UP, 1).peak == 2.5e14
    hours = [budget.budget(_light(dtype), "H100 SXM").hours for dtype in models.DTYPES]
    assert hours == [pytest.approx(full.device_hours), pytest.approx(half.device_hours)]


def test_the_cores_that_the_input_needs_follow_from_the_record(tmp_path: Path) -> None:
    """As many as the steps' images a second want, by JPEGs of either quality; none where images are on the device."""
    wanted = cost.images_per_second(_light(), MADE_UP, 8, 0.5)
    assert wanted == pytest.approx(8 * 0.5 * 1e15 / cost.operations_per_image(_light()))
    assert cost.host_cores(_light(), 1000.0, tmp_path) == "not measured"
    rates = [(1, wanted / 20.5), (1, wanted / 10.5), (2, wanted)]
    timing.write("input", [{"cores": cores, "images/s": rate} for cores, rate in rates], tmp_path)
    assert cost.host_cores(_light(), wanted, tmp_path) == "11 to 21"
    assert cost.host_cores(_light(), wanted / 1000, tmp_path) == "1"
    assert cost.host_cores(recipes.get("flowers", "long"), wanted, tmp_path) == "none"


def test_memory_is_what_the_compiler_said_of_the_larger_program(tmp_path: Path) -> None:
    """Of those networks, dtype, device and number of devices; else they were not compiled."""
    h100, usual = devices.get("H100 SXM"), recipes.get("imagenet", "long")
    assert cost.memory(usual, h100, 8, tmp_path) == "not compiled"
    case = {"case": "imagenet", "policy": "mix", "dtype": "bfloat16", "target": "H100 x 8"}
    case |= {"device (GiB)": 79.1, "fits": True}
    programs = {"views and teacher": 21.66, "student": 9.0, "evaluation": 40.0}
    rows = [case | {"program": program, "peak (GiB)": peak} for program, peak in programs.items()]
    rows.append(case | {"target": "TPU v5e x 8", "program": "student", "peak (GiB)": 81.0, "fits": False})
    timing.write("compile", rows, tmp_path)
    assert cost.memory(usual, h100, 8, tmp_path) == "fits: yes, 21.7 of 79.1 GiB"
    assert cost.memory(usual, devices.get("TPU v5e"), 8, tmp_path).startswith("fits: no, 81.0 of")
    assert cost.memory(usual, h100, 4, tmp_path) == "not compiled"
    for changes in ({"dtype": "float32"}, {"resolution": 160}, {"optimizer": "sgd"}, {"policy": "same/ic"}):
        assert cost.memory(recipes.get("imagenet", "long", **changes), h100, 8, tmp_path) == "not compiled"


def _light(dtype: str | None = None) -> recipes.Recipe:
    """A preset on ImageNet whose network is quick to count."""
    return recipes.get("imagenet", "long", policy="labels", student="mobilenet_v3_small_gn", dtype=dtype)


@pytest.mark.parametrize("utilisation", [0, 1.1])
def test_an_impossible_utilisation_is_refused(utilisation: float) -> None:
    with pytest.raises(DistillError, match="utilisation is a share"):
        cost.estimate(recipes.get("fashion", "quick"), MADE_UP, 1, utilisation)


def test_what_is_not_known_is_told() -> None:
    """A teacher's file may not be there, and neither may a device's data sheet."""
    with pytest.raises(DistillError, match="unknown teacher"):
        cost.operations_per_image(recipes.get("fashion", "quick", teacher="mine.npz"))
    with pytest.raises(DistillError, match="unknown device"):
        devices.get("H1000")

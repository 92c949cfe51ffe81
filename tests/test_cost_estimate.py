"""Estimates: operations counted by hand, and hours that follow from them."""

from __future__ import annotations

import pytest

from distill_lib import cost_estimate, devices, models, recipes
from distill_lib.errors import DistillError
from distill_lib.models import cost

MADE_UP = devices.Device("made up", 1e15, "nobody")


def test_a_step_costs_the_teacher_once_and_the_student_three_times() -> None:
    """Two operations for each multiply-accumulate; labels and fixed teachers cost no teacher in a step."""
    student, teacher = (cost.macs(models.create(name, 10), (28, 28, 1)) for name in ("bit_r11w8", "bit_r11w24"))
    taught, alone, fixed = (recipes.get("fashion", "quick", policy=policy) for policy in ("mix", "labels", "fix/cc"))
    assert cost_estimate.operations_per_image(taught) == 2 * (3 * student + teacher)
    assert cost_estimate.operations_per_image(alone) == cost_estimate.operations_per_image(fixed) == 6 * student


def test_a_teacher_of_its_own_size_is_counted_at_that_size() -> None:
    """Two teachers at two resolutions look at one view."""
    one, both = (recipes.get("imagenet", "long", teacher=name) for name in ("R50x1_224", "R50x1_224 + R50x1_160"))
    added = cost_estimate.operations_per_image(both) - cost_estimate.operations_per_image(one)
    assert added == 2 * cost.macs(models.create("bit_r50x1", 1000), (160, 160, 3))
    small, large = (recipes.get("fashion", "quick", teacher=name) for name in ("fashion", "fashion@36"))
    added = cost_estimate.operations_per_image(large) - cost_estimate.operations_per_image(small)
    network = models.create("bit_r11w24", 10)
    assert added == 2 * (cost.macs(network, (36, 36, 1)) - cost.macs(network, (28, 28, 1)))


def test_images_of_another_set_are_counted() -> None:
    """As many steps as the schedule has on them."""
    assert cost_estimate.training_images(recipes.get("pets", "from_food_1000")) == 68_175
    few = (recipes.get("fashion", "medium", train_images=n) for n in (None, 255))
    assert [cost_estimate.training_images(recipe) for recipe in few] == [1_020, 255]
    recipe = recipes.get("pets", "from_food_1000")
    shown = recipe.steps(68_175) * recipe.batch_size
    operations = cost_estimate.estimate(recipe, MADE_UP, 1).operations
    assert operations == shown * cost_estimate.operations_per_image(recipe)


def test_hours_follow_from_operations_peak_and_utilisation() -> None:
    """More devices take fewer days and as many device-hours; half the utilisation takes twice as long."""
    recipe = recipes.get("imagenet", "long", policy="labels", student="mobilenet_v3_small_gn")
    eight, many = (cost_estimate.estimate(recipe, MADE_UP, count, 0.5) for count in (8, 64))
    shown = recipe.steps(1_255_544) * recipe.batch_size
    assert eight.operations == shown * cost_estimate.operations_per_image(recipe)
    assert eight.device_hours == pytest.approx(eight.operations / 5e14 / 3600)
    assert many.device_hours == eight.device_hours and eight.days == pytest.approx(8 * many.days)
    (row,) = cost_estimate.table(recipe, (8, 64), 0.25, [MADE_UP]).to_dict("records")
    assert row["days on 64"] == f"{2 * many.days:,.1f}"


@pytest.mark.parametrize("utilisation", [0, 1.1])
def test_an_impossible_utilisation_is_refused(utilisation: float) -> None:
    with pytest.raises(DistillError, match="utilisation is a share"):
        cost_estimate.estimate(recipes.get("fashion", "quick"), MADE_UP, 1, utilisation)


def test_what_is_not_known_is_told() -> None:
    """A teacher's file may not be there, and neither may a device's data sheet."""
    with pytest.raises(DistillError, match="unknown teacher"):
        cost_estimate.operations_per_image(recipes.get("fashion", "quick", teacher="mine.npz"))
    with pytest.raises(DistillError, match="unknown device"):
        devices.get("H1000")

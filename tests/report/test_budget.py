"""Budgets: operations by hand, and hours from a record where there is one."""

from __future__ import annotations

import pandas as pd
import pytest

from distill_lib import models, recipes
from distill_lib.errors import DistillError
from distill_lib.models import flops
from distill_lib.report import budget, cost, devices

SHAPE = (28, 28, 1)


def macs(name: str) -> int:
    """Of one of the study's networks."""
    return flops.macs(models.create(name, 10), SHAPE)


def run(**fields) -> pd.DataFrame:
    """A record of the embedded study's networks on a made-up device, as `records.read` gives it."""
    usual = {"device": "made up", "device_count": 1, "images_per_second": 100.0, "student": "bit_r11w8"}
    usual |= {"teacher": "fashion", "resolution": 28, "policy": "same/ic", "class_size": 1}
    return pd.DataFrame([usual | fields])


@pytest.mark.parametrize(
    ("policy", "answers"), [("mix", 797 * 128), ("fix/cc", 1_020), ("fix/ic_ens", 1_020 * 200), ("labels", 0)]
)
def test_operations_of_teacher_and_student_are_counted_apart(policy: str, answers: int) -> None:
    """A live teacher answers for every image of every step, a fixed one once for each image and crop."""
    found = budget.budget(recipes.get("fashion", "medium", policy=policy))
    assert found.steps == 797
    assert found.student == 2 * 3 * macs("bit_r11w8") * 797 * 128
    assert found.teacher == 2 * macs("bit_r11w24") * answers
    per_second = devices.get(budget.DEVICE).float32 * cost.UTILISATION
    assert not found.measured and found.hours == pytest.approx((found.teacher + found.student) / per_second / 3600)


def test_a_record_of_the_same_networks_gives_the_hours() -> None:
    """Whatever the policy, as long as the teacher is asked in every step; several devices are counted as such."""
    recipe = recipes.get("fashion", "medium", policy="mix")
    found = budget.budget(recipe, "made up", run(images_per_second=200.0, device_count=2))
    assert found.measured and found.hours == pytest.approx(797 * 128 / 100 / 3600)
    h100 = budget.budget(recipe, "H100 SXM", run(device="NVIDIA H100 80GB HBM3"))
    assert h100.measured and h100.hours == found.hours
    cpu = "CPU, 2 cores (x86_64)"
    assert budget.budget(recipe, cpu, run(device=cpu)).measured
    assert not budget.budget(recipe, "L4", run(device="NVIDIA L40S")).measured


@pytest.mark.parametrize(
    "other",
    [
        {"policy": "labels"},
        {"policy": "fix/cc"},
        {"resolution": 32},
        {"student": "bit_r11w16"},
        {"class_size": 8},
        {"teacher": "mock"},
        {"dtype": "bfloat16"},
        {"stored": 3.0},
    ],
)
def test_a_record_of_something_else_gives_no_hours(other: dict) -> None:
    """And without a peak nothing is estimated either."""
    found = budget.budget(recipes.get("fashion", "medium", policy="mix"), "made up", run(**other))
    assert found.hours is None and not found.measured and found.steps == 797


def test_an_unknown_device_is_told_with_those_that_are_known() -> None:
    with pytest.raises(DistillError, match="unknown device 'H1000'.*Valid: H200 SXM.*made up"):
        budget.budget(recipes.get("fashion", "medium"), "H1000", run())

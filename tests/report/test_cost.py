"""What recipes cost: operations counted by hand, and hours that follow from them or from a record."""

from __future__ import annotations

from pathlib import Path

import jax
import pandas as pd
import pytest

from benchmarks import timing
from distill_lib import models, recipes, teachers, weights
from distill_lib.errors import DistillError
from distill_lib.models import flops
from distill_lib.report import cost

SHAPE = (28, 28, 1)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> cost.Device:
    """A device with round peaks, of the name "made up"."""
    device = cost.Device(1e15, 2.5e14, "nobody")
    monkeypatch.setitem(cost.DEVICES, "made up", device)
    return device


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of the test's own."""
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    return tmp_path


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
    rendered = recipe.steps(68_175) * recipe.batch_size
    assert cost.of_recipe(recipe).student == rendered * cost.student_operations(recipe)


def test_hours_follow_from_operations_peak_and_utilisation(made_up: cost.Device) -> None:
    """More devices take fewer days and as many device-hours."""
    recipe = _light()
    operations = recipe.steps(1_255_544) * recipe.batch_size * cost.operations_per_image(recipe)
    hours = cost.device_hours(operations, "made up", recipe.dtype)
    assert hours == pytest.approx(operations / (cost.UTILISATION * 1e15) / 3600)
    row = cost.table(recipe, (8, 64)).set_index("device").loc["made up"]
    assert row["device-hours"] == f"{hours:,.0f}" and row["source of the peak"] == "nobody"
    assert (row["days on 8"], row["days on 64"]) == tuple(f"{hours / count / 24:,.1f}" for count in (8, 64))
    assert row["images/s on 8"] == f"{8 * cost.UTILISATION * 1e15 / cost.operations_per_image(recipe):,.0f}"


def test_a_recipe_is_priced_at_the_peak_of_its_dtype(made_up: cost.Device) -> None:
    """The paper's presets compute in bfloat16, which is twice as fast on an H100; the embedded set's are float32."""
    names = ("flowers", "pets", "food", "sun397", "imagenet")
    assert {recipes.get(name, variant).dtype for name in names for variant in ("long", "teacher")} == {"bfloat16"}
    assert {recipes.get(*preset).dtype for preset in (("fashion", "long"), ("flowers", "smoke"))} == {"float32"}
    assert (made_up.peak("bfloat16"), made_up.peak("float32")) == (1e15, 2.5e14)
    full, half = (cost.of_recipe(_light(dtype), "H100 SXM").hours for dtype in models.DTYPES)
    assert full == pytest.approx(2 * half)


def test_the_cores_that_the_input_needs_follow_from_the_record(results: Path) -> None:
    """As many as the steps' images a second want, by JPEGs of either quality; none where images are on the device."""
    speed = 5000.0
    assert cost.host_cores(_light(), speed) == "not measured"
    rates = [(1, speed / 20.5), (1, speed / 10.5), (2, speed)]
    timing.write("input", [{"cores": cores, "images/s": rate} for cores, rate in rates])
    assert cost.host_cores(_light(), speed) == "11 to 21"
    assert cost.host_cores(_light(), speed / 1000) == "1"
    assert cost.host_cores(recipes.get("flowers", "long"), speed) == "none"


def test_memory_is_what_the_compiler_said_of_the_larger_program(results: Path) -> None:
    """Of those networks, dtype, device and number of devices; else they were not compiled."""
    h100, usual = "H100 SXM", recipes.get("imagenet", "long")
    assert cost.memory(usual, h100, 8) == "not compiled"
    case = {"case": "imagenet", "policy": "mix", "dtype": "bfloat16", "target": "H100 x 8"}
    case |= {"device (GiB)": 79.1, "fits": True}
    programs = {"views and teacher": 21.66, "student": 9.0, "evaluation": 40.0}
    rows = [case | {"program": program, "peak (GiB)": peak} for program, peak in programs.items()]
    rows.append(case | {"target": "TPU v5e x 8", "program": "student", "peak (GiB)": 81.0, "fits": False})
    timing.write("compile", rows)
    assert cost.memory(usual, h100, 8) == "fits: yes, 21.7 of 79.1 GiB"
    assert cost.memory(usual, "TPU v5e", 8).startswith("fits: no, 81.0 of")
    assert cost.memory(usual, h100, 4) == "not compiled"
    for changes in ({"dtype": "float32"}, {"resolution": 160}, {"optimizer": "sgd"}, {"policy": "same/ic"}):
        assert cost.memory(recipes.get("imagenet", "long", **changes), h100, 8) == "not compiled"


def _light(dtype: str | None = None) -> recipes.Recipe:
    """A preset on ImageNet whose network is quick to count."""
    return recipes.get("imagenet", "long", policy="labels", student="mobilenet_v3_small_gn", dtype=dtype)


def test_what_is_not_known_is_told() -> None:
    """A teacher's file may not be there, and neither may a device's data sheet."""
    with pytest.raises(DistillError, match="unknown teacher"):
        cost.operations_per_image(recipes.get("fashion", "quick", teacher="mine.npz"))
    with pytest.raises(DistillError, match="unknown device"):
        cost.peaks("H1000")


def macs(name: str) -> int:
    """Of one of the study's networks."""
    return flops.macs(models.create(name, 10), SHAPE)


def run(**fields) -> pd.DataFrame:
    """A record of the embedded study's networks on a made-up device, as `records.read` gives it."""
    usual = {"device": "made up", "device_count": 1, "images_per_second": 100.0, "student": "bit_r11w8"}
    usual |= {"teacher": "fashion", "resolution": 28, "policy": "same/ic", "students_per_step": 1}
    return pd.DataFrame([usual | fields])


@pytest.mark.parametrize(
    ("policy", "answers"), [("mix", 797 * 128), ("fix/cc", 1_020), ("fix/ic_ens", 1_020 * 200), ("labels", 0)]
)
def test_operations_of_teacher_and_student_are_counted_apart(policy: str, answers: int) -> None:
    """A live teacher answers for every image of every step, a fixed one once for each image and crop."""
    found = cost.of_recipe(recipes.get("fashion", "medium", policy=policy))
    assert found.steps == 797
    assert found.student == 2 * 3 * macs("bit_r11w8") * 797 * 128
    assert found.teacher == 2 * macs("bit_r11w24") * answers
    per_second = cost.peaks(cost.DEVICE).float32 * cost.UTILISATION
    assert not found.measured and found.hours == pytest.approx((found.teacher + found.student) / per_second / 3600)


def test_a_record_of_the_same_networks_gives_the_hours() -> None:
    """Whatever the policy, as long as the teacher is asked in every step; several devices are counted as such."""
    recipe = recipes.get("fashion", "medium", policy="mix")
    found = cost.of_recipe(recipe, "made up", run(images_per_second=200.0, device_count=2))
    assert found.measured and found.hours == pytest.approx(797 * 128 / 100 / 3600)
    h100 = cost.of_recipe(recipe, "H100 SXM", run(device="NVIDIA H100 80GB HBM3"))
    assert h100.measured and h100.hours == found.hours
    cpu = "CPU, 2 cores (x86_64)"
    assert cost.of_recipe(recipe, cpu, run(device=cpu)).measured
    assert not cost.of_recipe(recipe, "L4", run(device="NVIDIA L40S")).measured


@pytest.mark.parametrize(
    "other",
    [
        {"policy": "labels"},
        {"policy": "fix/cc"},
        {"resolution": 32},
        {"student": "bit_r11w16"},
        {"students_per_step": 8},
        {"teacher": "mock"},
        {"dtype": "bfloat16"},
        {"stored": 3.0},
    ],
)
def test_a_record_of_something_else_gives_no_hours(other: dict) -> None:
    """And without a peak nothing is estimated either."""
    found = cost.of_recipe(recipes.get("fashion", "medium", policy="mix"), "made up", run(**other))
    assert found.hours is None and not found.measured and found.steps == 797


def test_an_unknown_device_is_told_with_those_that_are_known() -> None:
    with pytest.raises(DistillError, match="unknown device 'H1000'.*Valid: H200 SXM.*made up"):
        cost.of_recipe(recipes.get("fashion", "medium"), "H1000", run())


def test_parameters_are_counted() -> None:
    """As many as lie in the embedded teacher's file."""
    params = weights.load_npz(teachers.EMBEDDED["fashion"])
    counted = cost.student_parameters(recipes.get("fashion_teacher", "full"))
    assert counted == sum(leaf.size for leaf in jax.tree.leaves(params))

"""Recipes: the presets are the paper's, nonsense is refused before any work, and a run's name says what it is."""

from __future__ import annotations

import dataclasses
import datetime
import os
import subprocess
import sys
from typing import Any

import pytest

from distill_lib import datasets, models, recipes, teachers, views
from distill_lib.datasets import source
from distill_lib.errors import DistillError

PAPER = {
    # Table 4 of the paper: epochs, T, lr, wd
    ("flowers", "fast"): (10_000, 10, 3e-3, 3e-4),
    ("flowers", "medium"): (100_000, 1, 1e-3, 1e-4),
    ("flowers", "long"): (1_000_000, 1, 3e-4, 1e-5),
    ("pets", "fast"): (1_000, 5, 1e-2, 1e-3),
    ("pets", "medium"): (3_000, 10, 3e-3, 3e-4),
    ("pets", "long"): (30_000, 2, 3e-3, 1e-5),
    ("food", "fast"): (100, 10, 1e-2, 1e-3),
    ("food", "medium"): (1_000, 10, 1e-3, 3e-4),
    ("food", "long"): (3_000, 5, 1e-2, 1e-4),
    ("sun397", "fast"): (100, 10, 1e-2, 1e-3),
    ("sun397", "medium"): (1_000, 10, 3e-3, 1e-4),  # the released configuration has lr .001
    ("sun397", "long"): (3_000, 10, 1e-2, 3e-5),
}
TEACHERS = {
    "flowers": "R152x2_T_flowers128",
    "pets": "R152x2_T_pet128",
    "food": "R152x2_T_food128",
    "sun397": "R152x2_T_sun128",
    "imagenet": "R152x2_T_224",
}
OTHER = {  # another valid value of every field but dataset and variant
    "policy": "ind/ic",
    "student": "bit_r20w8",
    "teacher": "elsewhere.npz",
    "epochs": 3,
    "batch_size": 32,
    "resolution": 14,
    "temperature": 5,
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "warmup_steps": 2,
    "seed": 7,
    "train_images": 48,
    "crop_area": (0.1, 0.9),
    "whole": 0.5,
    "mixup": "example",
    "ensemble_crops": 3,
    "eval_side": 0.5,
    "evaluations": 1,
    "ensemble": "probabilities",
    "dtype": "bfloat16",
    "view_seed": 3,
    "optimizer": "shampoo",
    "schedule": "quadratic",
    "decay": "adamw",
    "distance": "l2",
    "temperature_squared": False,
    "label_share": 0.1,
    "mixup_beta": 0.2,
    "mixup_folded": True,
    "start": "pretrained.npz",
    "transfer_set": "digits",
    "label_smoothing": 0.1,
    "stored": 4,
    "on_divergence": "rewind",
}


@pytest.mark.parametrize(("dataset", "variant"), PAPER)
def test_presets_of_the_small_sets_are_the_papers(dataset: str, variant: str) -> None:
    """Table 4, and what is common: 128 px, batch 512, 1,500 warm-up steps, crops 5-100 %, resize 160 and crop 128."""
    recipe = recipes.get(dataset, variant)
    found = (recipe.epochs, recipe.temperature, recipe.learning_rate, recipe.weight_decay)
    assert found == PAPER[dataset, variant]
    assert (recipe.policy, recipe.student, recipe.teacher) == ("mix", "bit_r50x1", TEACHERS[dataset])
    assert (recipe.resolution, recipe.batch_size, recipe.warmup_steps) == (128, 512, 1500)
    assert (recipe.crop_area, recipe.eval_side, recipe.whole, recipe.mixup) == ((0.05, 1.0), 128 / 160, 0.0, "batch")
    assert recipe.ensemble_crops == 1000 and recipe.train_images is None


@pytest.mark.parametrize(("variant", "epochs"), [("fast", 300), ("medium", 1_200), ("long", 9_600)])
def test_presets_of_imagenet_are_the_papers(variant: str, epochs: int) -> None:
    """lr .03, wd 3e-4, T 1, batch 4096, 5,000 warm-up steps, resize 256 and crop 224."""
    recipe = recipes.get("imagenet", variant)
    found = (recipe.epochs, recipe.temperature, recipe.learning_rate, recipe.weight_decay)
    assert found == (epochs, 1, 3e-2, 3e-4)
    assert (recipe.resolution, recipe.batch_size, recipe.warmup_steps, recipe.eval_side) == (224, 4096, 5000, 224 / 256)
    assert (recipe.policy, recipe.student, recipe.teacher) == ("mix", "bit_r50x1", TEACHERS["imagenet"])


def test_every_preset_can_be_built() -> None:
    """Names in the tables are names that the library knows, and every schedule is longer than its warm-up."""
    assert set(recipes.names()) == set(datasets.names()) - {"imagenet_v2", "imagenet_real", "digits", "patches"}
    for dataset in recipes.names():
        assert recipes.variants(dataset)[-1] == "smoke"
        for variant in recipes.variants(dataset):
            recipe = recipes.get(dataset, variant)
            assert (recipe.dataset, recipe.variant, recipe.study) == (dataset, variant, f"{dataset}_{variant}")
            models.create(recipe.student, datasets.get(dataset).num_classes)
            assert not recipe.has_teacher or {name for name, _ in teachers.parts(recipe.teacher)} <= set(
                teachers.names()
            )
            assert recipe.start in (None, *teachers.names())
            shown = datasets.get(recipe.transfer_set or dataset)
            images = source.MOCK_EXAMPLES if variant == "smoke" else shown.counts["train"]
            assert recipe.steps(images) > recipe.warmup_steps


@pytest.mark.parametrize("policy", [*views.POLICIES, *views.BASELINES])
def test_policies_of_the_paper_have_a_teacher_and_baselines_have_none(policy: str) -> None:
    """The one thing that decides whether a teacher is loaded."""
    assert recipes.get("fashion", "smoke", policy=policy).has_teacher == (policy in views.POLICIES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((("fashoin", "quick"), {}), "unknown dataset 'fashoin'.*'fashion'.*Valid: fashion, .*flowers, .*imagenet"),
        (
            (("fashion", "fast"), {}),
            "unknown variant of fashion 'fast'.*Valid: quick, .*long, longest, .*smoke",
        ),
        ((("flowers", "quick"), {}), "unknown variant of flowers 'quick'.*Valid: fast, medium, long, mix_1000,.*smoke"),
        ((("fashion", "quick"), {"policy": "same"}), "unknown policy 'same'.*Valid: fix/rs, .*mix, labels, labels/mix"),
        ((("fashion", "quick"), {"mixup": "image"}), "unknown mixup 'image'.*Valid: batch, example"),
        (((5, "quick"), {}), "unknown dataset '5'"),
        ((("fashion", "quick"), {"lr": 1.0}), "unknown recipe setting 'lr'.*Valid: policy, .*learning_rate"),
    ],
)
def test_unknown_names_are_told_with_the_valid_ones(call: tuple, message: str) -> None:
    """A misspelt name stops at once, and the error lists what there is."""
    names, overrides = call
    with pytest.raises(DistillError, match=message) as caught:
        recipes.get(*names, **overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"temperature": 0}, "temperature must be from 0.001 to 1000, .*, got 0"),
        ({"temperature": float("nan")}, "temperature must be a number, got nan"),
        ({"learning_rate": -1e-3}, "learning_rate must be from 1e-12 to 3e.38, got -0.001"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number, got inf"),
        ({"weight_decay": -1e-9}, "weight_decay must be from 0 to"),
        ({"epochs": 0}, "epochs must be from 1e-06 to 1000000000, got 0"),
        ({"batch_size": 0}, "batch_size must be from 1 to 1048576, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number, got 1.5"),
        ({"batch_size": 10**400}, "batch_size must be a whole number, got 1000"),
        ({"batch_size": True}, "batch_size must be a whole number, got True"),
        ({"resolution": -28}, "resolution must be from 1 to 4096 pixels, got -28"),
        ({"warmup_steps": -1}, "warmup_steps must be from 0 to 2147483647, got -1"),
        ({"stored": 0}, "stored must be from 1 to"),
        ({"evaluations": 151}, "evaluations must be from 1 to 150, .*, got 151"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"view_seed": 2**32}, "view_seed must be from 0 to 4294967295 .*, got 4294967296"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295"),
        ({"policy": 3}, "policy must be text, got 3"),
        ({"evaluations": 0}, "evaluations must be from 1 to 150"),
        ({"ensemble_crops": 0}, "ensemble_crops must be from 1 to"),
        ({"train_images": 127}, r"batch_size 128 is larger than the data \(127 training images\)"),
        ({"train_images": "all"}, "train_images must be a whole number or None, got 'all'"),
        ({"crop_area": 0.5}, "crop_area must be two fractions"),
        ({"crop_area": (0.1, 0.2, 0.3)}, "crop_area must be two fractions"),
        ({"crop_area": (0.0, 1.0)}, "crop_area must be two fractions 0 < low <= high <= 1"),
        ({"crop_area": (0.9, 0.1)}, "crop_area must be two fractions 0 < low <= high <= 1"),
        ({"crop_area": (0.5, 1.1)}, "crop_area must be two fractions 0 < low <= high <= 1"),
        ({"crop_area": ("a", "b")}, "crop_area must be two fractions"),
        ({"crop_area": (float("nan"), 1.0)}, "crop_area must be two fractions"),
        ({"eval_side": 0}, "eval_side must be from 0.001 to 1, got 0"),
        ({"whole": 1.5}, "whole must be from 0 to 1, got 1.5"),
        ({"epochs": 2**31}, "epochs must be from .* to 1000000000, got 2147483648"),
        ({"epochs": 1e9}, "1e.09 epochs of 1020 images are [0-9]+ steps: choose fewer"),
        ({"resolution": 65536}, "resolution must be from 1 to 4096 pixels, got 65536"),
        ({"temperature": 1e-39}, "temperature must be from 0.001 to 1000, beyond which float32 .*, got 1e-39"),
        ({"weight_decay": 1e3}, "weight_decay 1000 takes 1000 of every weight in a step: it must be below 1;"),
        ({"weight_decay": 1e3, "decay": "adamw", "learning_rate": 0.1}, "takes 100 .*must be below 10;"),
        ({"train_images": 2**40}, "train_images must be from 1 to"),
        ({"learning_rate": datetime.date(2001, 1, 1)}, r"learning_rate must be a number, got datetime.date\(2001"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'.*Valid: adam, sgd, .*shampoo, soap, muon"),
        ({"optimizer": "schedule_free"}, "averages weights instead of a decay: choose schedule constant, not cosine"),
        ({"distance": "cosine"}, "unknown distance 'cosine'.*Valid: kl, .*hard"),
        ({"temperature_squared": 1}, "temperature_squared must be true or false, got 1"),
        ({"mixup_beta": 0}, "mixup_beta must be from 0.001 to 1000, got 0"),
        ({"label_share": 1}, "label_share must be from 0 to 0.999: for labels alone, choose policy labels, got 1"),
        ({"label_smoothing": 1, "distance": "hard"}, "label_smoothing must be from 0 to 0.999, got 1"),
        ({"label_smoothing": 0.1}, "label_smoothing smooths .* distance hard, not kl"),
        (
            {"label_smoothing": 0.1, "distance": "hard", "policy": "labels"},
            "label_smoothing smooths a teacher's .*, not labels",
        ),
        ({"label_share": 0.5, "policy": "fix/rs"}, "label_share needs a teacher .*; policy fix/rs has none"),
        ({"label_share": 0.5, "policy": "labels"}, "label_share needs a teacher .*; policy labels has none"),
        ({"transfer_set": "digits", "policy": "labels"}, "labels of digits do not name classes of fashion"),
        ({"transfer_set": "digits", "label_share": 0.5}, "labels of digits do not name classes of fashion"),
    ],
)
def test_values_that_make_no_sense_are_refused(overrides: dict[str, Any], message: str) -> None:
    """One line that names the setting and the value that was given."""
    with pytest.raises(DistillError, match=message) as caught:
        recipes.get("fashion", "quick", **overrides)
    assert "\n" not in str(caught.value)


def test_a_schedule_must_be_longer_than_its_warmup() -> None:
    """Flowers at 1,000 epochs has 1,992 steps; a shorter run would end inside the warm-up."""
    recipe = recipes.get("flowers", "fast", epochs=1_000)
    assert recipe.steps(1_020) == 1_992
    with pytest.raises(DistillError, match="753 epochs of 1020 images are 1500 steps, not more than the 1500 warm-up"):
        dataclasses.replace(recipe, epochs=753).steps(1_020)


def test_steps_are_epochs_times_images_over_batch() -> None:
    """Batches straddle epochs, so no image is dropped: the number of steps is rounded once, at the end of the run."""
    assert recipes.get("imagenet", "fast").steps(1_255_544) == round(300 * 1_255_544 / 4096)
    assert recipes.get("fashion", "quick", epochs=40, batch_size=128).steps(1_020) == 319


def test_settings_as_a_notebook_gives_them_are_brought_to_their_types() -> None:
    """Papermill passes 2 for 2.0, 16.0 for 16 and lists for tuples: the same run, so the same recipe and name."""
    plain = recipes.get("fashion", "quick", temperature=2.0, batch_size=16, crop_area=(0.05, 1.0))
    given = recipes.get("fashion", "quick", temperature=2, batch_size=16.0, crop_area=[0.05, 1])
    assert plain == given and plain.run_id() == given.run_id()
    assert type(given.temperature) is float and type(given.batch_size) is int


def test_none_keeps_the_presets_value() -> None:
    """A parameter that a notebook leaves at None changes nothing."""
    assert recipes.get("fashion", "quick", epochs=None, policy=None) == recipes.get("fashion", "quick")


def test_the_name_of_a_run_changes_with_every_field() -> None:
    """Two runs that differ in anything must never share a folder."""
    base = recipes.get("fashion", "smoke")
    settable = {field.name for field in dataclasses.fields(base)} - {"dataset", "variant"}
    assert set(OTHER) == settable
    changed = [dataclasses.replace(base, **{name: value}) for name, value in OTHER.items()]
    changed += [recipes.get("pets", "smoke"), dataclasses.replace(base, variant="quick")]
    for (name, value), recipe in zip(OTHER.items(), changed, strict=False):
        assert getattr(base, name) != value, name
        assert getattr(recipe, name) == value, name
    ids = {recipe.run_id("abc") for recipe in [base, *changed]} | {base.run_id("abd"), base.run_id()}
    assert len(ids) == len(changed) + 3


def test_the_name_of_a_run_can_be_read() -> None:
    """Policy, length and seed in clear, and fit for a folder."""
    run_id = recipes.get("fashion", "quick", policy="fix/ic_ens", epochs=12.5, seed=3).run_id("abc")
    assert run_id.startswith("fix-ic_ens_12.5ep_seed3_") and "/" not in run_id


def test_the_name_of_a_run_is_the_same_in_every_process() -> None:
    """A killed run finds its folder again: no salted hash, no order of a set."""
    script = "from distill_lib import recipes; print(recipes.get('fashion', 'quick', train_images=255).run_id('abc'))"
    environment = os.environ | {"PYTHONHASHSEED": "17"}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    assert found.stdout.strip() == recipes.get("fashion", "quick", train_images=255).run_id("abc")


def test_the_name_of_a_run_is_the_same_for_ever() -> None:
    """Committed records are found again by later versions only as long as this holds."""
    recipe = recipes.Recipe("d", "v", "mix", "s", "t", 1, 2, 3, 4, 5, 0.5, 7)
    assert recipe.run_id("abc") == "mix_1ep_seed0_c5503504"


def test_a_recipe_cannot_be_changed() -> None:
    """It names the run; changing it afterwards would make the record lie."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipes.get("fashion", "quick").seed = 1  # type: ignore[misc]

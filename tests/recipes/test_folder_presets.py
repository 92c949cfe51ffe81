"""Presets of a folder of pictures follow from their number, and fit together whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from picture_files import fill

from distill_lib import experiments, recipes
from distill_lib.datasets import image_folder, package_images
from distill_lib.errors import DistillError
from distill_lib.figures import photographs
from distill_lib.recipes import presets
from distill_lib.report import cost
from distill_lib.train import setup

LENGTHS = {"teacher": (3_000, 3), "fast": (10_000, 3), "medium": (40_000, 10), "long": (160_000, 30)}
"""Of each preset, images that are shown at least, and passes over the training images at least."""


@pytest.mark.parametrize("images", [3, 17, 58, 1_000, 20_000, 300_000])
def test_every_number_of_images_has_presets_that_run(images: int) -> None:
    """No batch that is larger than the data, and no schedule that ends within its warm-up: nothing to set by hand."""
    for name, preset in presets.of_folder(images).items():
        recipe = recipes.Recipe(dataset="d", variant=name, **(presets.COMMON["folder"] | preset.settings))
        recipe.check_length(images)
        shown, passes = recipe.steps(images) * recipe.batch_size, recipe.epochs
        assert (shown >= 0.9 * LENGTHS[name][0]) and passes >= LENGTHS[name][1]


def test_a_few_pictures_are_a_matter_of_minutes(tmp_path: Path) -> None:
    """The estimate grows with the length, and is there before anything is trained."""
    name = f"folder:{package_images.write_folder(tmp_path)}"
    teacher = experiments.teacher(name)
    lengths = [
        photographs.minutes(teacher, recipes.get(name, preset, teacher="t.npz"))
        for preset in ("fast", "medium", "long")
    ]
    assert lengths == sorted(lengths) and 1 < lengths[0] < 15 and lengths[2] < 120
    assert cost.training_images(teacher) == 58 < photographs.rendered(teacher)


def test_a_teacher_starts_from_the_imagenet_network_with_a_head_for_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = setup.prepare(experiments.teacher(f"folder:{fill(tmp_path)}"))
    assert task.start is not None and task.start["params"]["head"]["kernel"].shape == (1280, 2)
    assert "has a head of 1000 classes; it was replaced by zeros for 2 classes" in capsys.readouterr().out


def test_a_run_looks_at_its_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look takes long where there are many pictures; and what a run is told of it is all of one moment."""
    recipe, scan, looked = recipes.get(f"folder:{fill(tmp_path)}", "fast", policy="labels"), image_folder.scan, []
    monkeypatch.setattr(image_folder, "scan", lambda root: looked.append(root) or scan(root))
    assert len(setup.prepare(recipe).train) and looked == [tmp_path]


def test_a_start_of_another_network_is_told(tmp_path: Path) -> None:
    """One line, rather than a list of all arrays that do not fit."""
    recipe = recipes.get(f"folder:{fill(tmp_path)}", "fast", policy="labels", start="imagenet_lite0")
    with pytest.raises(DistillError, match="start imagenet_lite0 holds efficientnet_lite0, not bit_r14w8: choose"):
        setup.prepare(recipe)


def test_without_a_teacher_the_error_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="has no teacher of its own.*nox -s run -- own_photographs -p folder PATH"):
        recipes.get(f"folder:{fill(tmp_path)}", "fast")

"""Recipes by name, and what a recipe cannot ask for, told before any data or model is loaded."""

import dataclasses
from typing import Any

from distill_lib import models, teachers, views
from distill_lib.datasets import image_folder
from distill_lib.datasets.cards import CARDS
from distill_lib.errors import DistillError, unknown
from distill_lib.recipes import presets
from distill_lib.recipes.recipe import Recipe
from distill_lib.teachers import published

_TRAINED_FIRST = {
    "tfds": " with `-p policy labels`",
    "folder": ": `nox -s run -- own_photographs -p folder PATH` trains teacher and student",
}


def names() -> list[str]:
    """Data sets that have presets of their own; `tfds:NAME` has those of Pets, and those of `folder:PATH` are made."""
    return list(presets.VARIANTS)


def variants(dataset: str) -> list[str]:
    """Presets of a data set; raises DistillError for an unknown one. "smoke" runs on mock data in seconds."""
    return list(presets.tables(dataset)[1])


def get(dataset: str, variant: str, **overrides: Any) -> Recipe:
    """Looks up a preset and changes single settings of it: fields of `Recipe`; None keeps the preset's value.

    A data set is one of `names()`, or "tfds:NAME" (settings of Pets) or "folder:PATH" (settings that follow how many
    pictures there are), which have no teacher; a variant is one of `variants(dataset)`. DistillError for an unknown
    name, settings that make no sense, a teacher that nobody named, or a bad folder.
    """
    dataset = image_folder.absolute(str(dataset))  # one run has one name, from whichever folder it is started
    common, preset = presets.tables(dataset)[0], presets.describe(dataset, variant).settings
    settable = [field.name for field in dataclasses.fields(Recipe) if field.name not in ("dataset", "variant")]
    for name in overrides:
        if name not in settable:
            raise unknown("recipe setting", name, settable)
    given = {name: value for name, value in overrides.items() if value is not None}
    if "transfer_set" in given:
        given["transfer_set"] = image_folder.absolute(str(given["transfer_set"]))
    recipe = Recipe(dataset=dataset, variant=variant, **(common | preset | given))
    if recipe.has_teacher and recipe.teacher == presets.TEACHERLESS:
        raise DistillError(
            f"{dataset} has no teacher of its own: name one that knows its classes, as in `-p teacher PATH.npz`, or "
            f"train one first{_TRAINED_FIRST[dataset.partition(':')[0]]}."
        )
    refuse_impossible(recipe)
    return recipe


def refuse_impossible(recipe: Recipe) -> None:
    """Raises DistillError, with the reason, where a recipe's parts cannot work together."""
    if recipe.has_teacher:
        _check_teachers(recipe)
    if views.policy(recipe.policy).mix and recipe.batch_size < 2:
        raise DistillError(f"policy {recipe.policy} mixes two images of a batch: batch_size must be at least 2, got 1.")
    if recipe.label_smoothing and not (recipe.has_teacher and recipe.distance == "hard"):
        raise DistillError(
            f"label_smoothing smooths a teacher's first guess: choose a policy with a teacher and distance hard, not "
            f"{recipe.distance if recipe.has_teacher else recipe.policy}."
        )
    images = {name: card.counts["train"] for name, card in CARDS.items() if "train" in card.counts}
    source = recipe.transfer_set
    if source is not None and source not in images and not presets.is_foreign(source):
        raise unknown("transfer_set", source, [*images, "tfds:NAME", "folder:PATH"])
    if source == recipe.dataset:
        raise DistillError(f"transfer_set {source} is the data set itself: name another, or leave transfer_set out.")
    models.check_resolution(recipe.student, recipe.resolution)
    count = images.get(source or recipe.dataset)
    if count is not None and recipe.variant != "smoke":
        recipe.check_length(min(count, recipe.train_images or count))


def _check_teachers(recipe: Recipe) -> None:
    parts = teachers.parts(recipe.teacher)
    twice = next((name for name, side in parts if parts.count((name, side)) > 1), None)
    if twice is not None:
        raise DistillError(f"teacher {twice} is named twice, and its mean with itself is itself: name another, or one.")
    if recipe.ensemble == "probabilities" and len(parts) == 1:
        raise DistillError(
            f"ensemble {recipe.ensemble} is a mean over several teachers, and {recipe.teacher} is one: name others "
            "after ' + ', or leave ensemble out."
        )
    classes = CARDS[recipe.dataset].num_classes if recipe.dataset in CARDS else None
    for name, side in parts:
        if (known := published.CHECKPOINTS.get(name)) is None:
            continue
        models.check_resolution(known.model, side or known.resolution)
        if classes not in (None, known.num_classes):
            raise DistillError(
                f"teacher {name} knows {known.num_classes} classes, and {recipe.dataset} has {classes}: name another."
            )

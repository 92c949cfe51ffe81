"""What the notebook `own_photographs` does beside training: it says how long that takes, and shows what was learnt."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from distill_lib import datasets, models
from distill_lib.datasets import decode
from distill_lib.datasets.source import MOCK_EXAMPLES
from distill_lib.errors import DistillError
from distill_lib.figures import recognition, views
from distill_lib.recipes import Recipe
from distill_lib.report import cost

LEARNING, ANSWERING = 12e9, 45e9
"""Operations a second of the presets' networks on two cores of a server, one of them busy; others may be far slower."""


def minutes(teacher: Recipe, student: Recipe) -> float:
    """About how long two CPU cores take to train a teacher, and then a student of it."""
    tuning = cost.student_operations(teacher)
    answer, learning = tuning / cost.STUDENT_PASSES, cost.student_operations(student)
    seconds = _shown(teacher) * tuning / LEARNING + _shown(student) * (learning / LEARNING + answer / ANSWERING)
    return seconds / 60


def _shown(recipe: Recipe) -> int:
    """Images that a run shows."""
    return recipe.steps(cost.training_images(recipe)) * recipe.batch_size


def announcement(teacher: Recipe, student: Recipe) -> str:
    """A line that says what will be trained on what, and about how long that takes."""
    data = datasets.get(student.dataset)
    spent = max(1, round(minutes(teacher, student)))
    counts = ", ".join(f"{count:,} for {split}" for split, count in data.counts.items())
    return (
        f"About {spent} minute{'s' if spent > 1 else ''} on two CPU cores: {data.num_classes} classes; pictures: "
        f"{counts}; the teacher is shown {_shown(teacher):,} views, the student {_shown(student):,}."
    )


def right(record: dict[str, Any]) -> str:
    """A run's test accuracy in words, with how many pictures that is."""
    images, share = datasets.get(record["recipe"]["dataset"]).counts["test"], record["result"]["test_top1"]
    images = MOCK_EXAMPLES if record["mock"] else images
    return f"{share:.1%} of the test pictures, {round(share * images)} of {images}"


def answers(recipe: Recipe, variables: models.Variables, count: int = 5) -> Figure:
    """The first test pictures that can be decoded, and what a student says of them.

    Args:
        recipe: of the student.
        variables: of the student.
        count: pictures, at most.
    """
    mock = recipe.variant == "smoke"
    names = datasets.class_names(recipe.dataset)
    source = datasets.load(recipe.dataset, "test", mock=mock)
    shown = []
    for index in range(len(source)):
        try:
            pixels = decode.decode(source.encoded(index).image)
        except decode.ImageError:
            continue
        shown.append(recognition.central_view(pixels, recipe.resolution, recipe.eval_side))
        if len(shown) == count:
            break
    if not shown:
        raise DistillError(f"no test picture of {recipe.dataset} can be decoded: replace or remove them.")
    student = models.create(recipe.student, len(names), recipe.dtype)
    shares = jax.nn.softmax(models.logits(student, variables, jnp.concatenate(shown)))
    return views.recognised(
        [image[0] for image in shown], np.asarray(shares), dict(enumerate(names)), colour=views.STUDENT
    )

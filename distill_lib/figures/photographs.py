"""What networks say of photographs: those that installed packages ship, and a reader's own in `own_photographs`."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distill_lib import datasets, models, views
from distill_lib.datasets import decode
from distill_lib.datasets.package_images import FILES, load
from distill_lib.errors import DistillError
from distill_lib.figures.views import STUDENT, recognised
from distill_lib.recipes import Recipe
from distill_lib.report import cost

if TYPE_CHECKING:
    from distill_lib.teachers import Teacher

FILE = Path(__file__).parents[1] / "data" / "photograph_classes.csv"
CLASS_NAMES = dict(pd.read_csv(FILE).itertuples(index=False))
"""ILSVRC 2012's, by the order of their WordNet numbers; only those that teachers and students think of."""
EVALUATION_SIDE = 224 / 256  # of the shorter side: resize to 256, crop 224
LEARNING, ANSWERING = 12e9, 45e9
"""Operations a second of the presets' networks on two cores of a server, one of them busy; others may be far slower."""


def central(image: NDArray[np.uint8], size: int, side: float = EVALUATION_SIDE) -> NDArray[np.float32]:
    """The central square of an image, a fraction `side` of its shorter side, float32 (1, size, size, 3) in [-1, 1]."""
    view = views.still(1, side=side, image_aspect=image.shape[1] / image.shape[0])
    return np.asarray(views.render(image[None], view, size))


def probabilities(teacher: "Teacher", size: int = 224) -> NDArray[np.float32]:
    """What a teacher says of each photograph: (photographs, classes), in the order of `FILES`."""
    return np.asarray(jax.nn.softmax(teacher.logits(np.concatenate([central(load(name), size) for name in FILES]))))


def minutes(teacher: Recipe, student: Recipe) -> float:
    """About how long two CPU cores take to train a teacher, and then a student of it."""
    tuning, learning = cost.student_operations(teacher), cost.student_operations(student)
    answer = tuning / cost.STUDENT_PASSES
    seconds = rendered(teacher) * tuning / LEARNING
    return (seconds + rendered(student) * (learning / LEARNING + answer / ANSWERING)) / 60


def rendered(recipe: Recipe) -> int:
    """Views that a run shows its student."""
    return recipe.steps(cost.training_images(recipe)) * recipe.batch_size


def answers(recipe: Recipe, variables: models.Variables, count: int = 5) -> Figure:
    """What a student says of the first test pictures that can be decoded, at most so many; DistillError for none."""
    names = datasets.class_names(recipe.dataset)
    source = datasets.load(recipe.dataset, "test", mock=recipe.variant == "smoke")
    pictures: list[NDArray[np.float32]] = []
    for index in range(len(source)):
        with contextlib.suppress(decode.ImageError):
            pixels = decode.decode(source.encoded(index).image)
            pictures.append(central(pixels, recipe.resolution, recipe.eval_side)[0])
        if len(pictures) == count:
            break
    if not pictures:
        raise DistillError(f"no test picture of {recipe.dataset} can be decoded: replace or remove them.")
    student = models.create(recipe.student, len(names), recipe.dtype)
    shares = np.asarray(jax.nn.softmax(models.logits(student, variables, jnp.stack(pictures))))
    return recognised(pictures, shares, dict(enumerate(names)), colour=STUDENT)

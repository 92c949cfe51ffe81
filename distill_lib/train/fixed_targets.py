"""What a fixed teacher says of every training image, once, before the first step."""

import jax
import numpy as np

from distill_lib import sharding, views
from distill_lib.crops import MILD_CROP_SIDE
from distill_lib.errors import logger
from distill_lib.input_pipeline.splits import Split
from distill_lib.recipes import Recipe
from distill_lib.teachers import Teacher
from distill_lib.teachers.teacher import Variables
from distill_lib.views import Pixels

AT_ONCE = 512  # images
SIDES = {"whole": 1.0, "central": MILD_CROP_SIDE}
"""Views of a fixed teacher that are a single crop: its sides, as fractions of the image's."""


def fixed_targets(teacher: Teacher, split: Split, recipe: Recipe) -> np.ndarray:
    """A fixed teacher's logits, (n, classes) float32, computed once for each image, for the crops of a recipe's policy.

    A mean over crops, of images in memory, is returned as logits whose softmax at the recipe's temperature is the mean
    of the predictions. Of an image that cannot be decoded, what is said of a black one: no step shows it.
    """
    crop = views.policy(recipe.policy).teacher
    assert crop is not None, "a baseline has no teacher"
    mean_over_crops, temperature = crop == "inception_mean", recipe.temperature
    kind = "inception" if mean_over_crops else crop

    @jax.jit
    def answer(variables: Variables, pixels: Pixels, key: jax.Array) -> jax.Array:
        count = len(jax.tree.leaves(pixels)[0])
        ratio = pixels.aspect()
        view = views.sample(key, count, crop=kind, flip=False, area=recipe.crop_area, image_aspect=ratio)
        show = lambda size: pixels.show(view, size or recipe.resolution, teacher=True)  # noqa: E731
        logits = teacher.ensemble.logits(variables, show, temperature)
        return jax.nn.softmax(logits / temperature) if mean_over_crops else logits

    variables = sharding.on_all_devices(teacher.variables)
    sizes = teacher.ensemble.sizes(recipe.resolution)
    crops, parts = recipe.ensemble_crops if mean_over_crops else 1, []
    for number, pixels in enumerate(split.parts(SIDES.get(kind, 1.0), sizes, AT_ONCE, square=False)):
        if number % 20 == 0 and number:
            logger.info("the teacher's fixed outputs: %d of %d images", number * AT_ONCE, len(split))
        first = jax.random.key(number * AT_ONCE)
        keys = (jax.random.fold_in(first, crop_number) for crop_number in range(crops))
        parts.append(sharding.fetch(sum(answer(variables, pixels, key) for key in keys)) / crops)
    means = np.concatenate(parts)[: len(split)]
    return temperature * np.log(np.maximum(means, np.finfo(np.float32).tiny)) if mean_over_crops else means

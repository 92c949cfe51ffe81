"""What an ImageNet teacher says of the photographs that installed packages bring along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distill_lib.datasets.package_images import FILES, load

if TYPE_CHECKING:
    from distill_lib.teachers import Teacher


CLASS_NAMES = {  # ILSVRC 2012's, in the order of their WordNet numbers; only those that the teacher thinks of here
    108: "sea anemone",
    281: "tabby",
    282: "tiger cat",
    285: "Egyptian cat",
    309: "bee",
    442: "bell cote",
    540: "drilling platform",
    657: "missile",
    663: "monastery",
    698: "palace",
    744: "projectile",
    925: "consomme",
    947: "mushroom",
    967: "espresso",
    968: "cup",
    985: "daisy",
}
EVALUATION_SIDE = 224 / 256  # of the shorter side: resize to 256, crop 224


def central(name: str, size: int) -> np.ndarray:
    """The evaluation view of a photograph, float32 (1, size, size, 3) in [-1, 1]."""
    return central_view(load(name), size, EVALUATION_SIDE)


def central_view(image: np.ndarray, size: int, side: float) -> np.ndarray:
    """The central square of an image, a fraction `side` of its shorter side, float32 (1, size, size, 3) in [-1, 1]."""
    from distill_lib import views

    view = views.still(1, side=side, image_aspect=image.shape[1] / image.shape[0])
    return np.asarray(views.render(image[None], view, size))


def probabilities(teacher: Teacher, size: int = 224) -> np.ndarray:
    """What a teacher says of each photograph: (photographs, classes), in the order of `FILES`."""
    import jax

    shown = np.concatenate([central(name, size) for name in FILES])
    return np.asarray(jax.nn.softmax(teacher.logits(shown)))

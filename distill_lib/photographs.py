"""Five photographs that installed packages bring along: what an ImageNet teacher says, and a folder of pieces."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill_lib.errors import DistillError

if TYPE_CHECKING:
    from distill_lib.teachers import Teacher

FILES = {  # name -> package, file in it
    "coffee": ("skimage", "data/coffee.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "palace": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
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
PIECES = (3, 5)  # rows and columns that `write_folder` cuts a photograph into


def load(name: str) -> np.ndarray:
    """Reads a photograph, uint8 (height, width, 3); DistillError if the package that ships it is not installed."""
    from PIL import Image

    package, file = FILES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DistillError(f"{package} is not installed, which ships a photograph: pip install -r requirements.txt.")
    with Image.open(Path(spec.submodule_search_locations[0]) / file) as picture:
        return np.asarray(picture.convert("RGB"))


def write_folder(root: Path) -> Path:
    """Writes a small data set of photographs: a folder of pieces of each, so that its class is whose piece it is.

    Pieces do not overlap, so that none shows pixels of another. What is there already stays.

    Returns:
        The folder; raises DistillError as `load`.
    """
    from PIL import Image

    for name in FILES:
        pixels = load(name)
        height, width = (side // count for side, count in zip(pixels.shape, PIECES, strict=False))
        (root / name).mkdir(parents=True, exist_ok=True)
        for row, column in np.ndindex(PIECES):
            top, left, target = row * height, column * width, root / name / f"{row}{column}.png"
            if not target.is_file():
                Image.fromarray(pixels[top : top + height, left : left + width]).save(target)
    return root


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

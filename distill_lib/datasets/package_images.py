"""Images that installed packages bring along, as training images of another domain; they are never judged by.

`digits` are scikit-learn's (UCI, Alpaydin and Kaynak, 1998), `patches` squares of the photographs of `FILES`.
"""

import importlib.util
from pathlib import Path

import numpy as np

from distill_lib.errors import DistillError

FILES = {  # name -> package, file in it
    "coffee": ("skimage", "data/coffee.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "palace": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
PIECES = (3, 5)  # rows and columns that `write_folder` cuts a photograph into


def load(name: str) -> np.ndarray:
    """Reads a photograph, uint8 (height, width, 3); DistillError if the package that ships it is not installed."""
    return read_file(*FILES[name])


def read_file(package: str, file: str) -> np.ndarray:
    """Reads any picture that a package ships, by its path in it; as `load`."""
    from PIL import Image

    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DistillError(f"{package} is not installed, which ships a photograph: pip install -r requirements.txt.")
    with Image.open(Path(spec.submodule_search_locations[0]) / file) as picture:
        return np.asarray(picture.convert("RGB"))


def write_folder(root: Path) -> Path:
    """Writes a small data set, a folder of pieces of each photograph, and returns its path; what is there stays."""
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


PATCHES, PATCH_SIDE = 1_020, 28  # in number and in pixels
_GREYS = 16  # of the digits


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads "digits" or "patches": images uint8 (n, side, side[, 3]), and labels int32 (n,); raises as `load`."""
    if name == "patches":
        return _patches()
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DistillError("scikit-learn is not installed, which ships the digits: pip install scikit-learn.") from None
    digits = load_digits()
    return np.rint(digits.images * (255 / _GREYS)).astype(np.uint8), digits.target.astype(np.int32)


def _patches() -> tuple[np.ndarray, np.ndarray]:
    """Squares at places and of sizes drawn once: from 28 pixels to half of the photograph, shrunk by area."""
    from PIL import Image

    pictures = [Image.fromarray(load(name)) for name in FILES]
    bits = np.random.Philox(key=np.array([0, 0], np.uint64)).random_raw(3 * PATCHES).reshape(PATCHES, 3)
    labels = np.arange(PATCHES, dtype=np.int32) % len(pictures)
    images = []
    for label, (size, top, left) in zip(labels, bits / 2.0**64, strict=True):
        picture = pictures[label]
        side = PATCH_SIDE + size * (min(picture.size) / 2 - PATCH_SIDE)
        x, y = left * (picture.width - side), top * (picture.height - side)
        square = (x, y, x + side, y + side)
        images.append(np.asarray(picture.resize((PATCH_SIDE, PATCH_SIDE), Image.Resampling.BOX, square)))
    return np.stack(images), labels

"""Images that installed packages bring along.

`digits` are scikit-learn's (UCI, Alpaydin and Kaynak, 1998), `patches` squares of the photographs of `FILES`; both are
training images of another domain, which nobody is judged by. `photographs` are squares of all of `SHEET`, without
labels; those to learn from, and those to be judged by, are of different photographs.
"""

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib.errors import DistillError

SHEET = {
    row["name"]: row
    for row in csv.DictReader(
        (Path(__file__).parents[1] / "data" / "photographs.csv").read_text(encoding="utf-8").splitlines()
    )
}
"""Where each photograph is, whose split of `photographs` it is of, and who gives it away on what terms."""
FILES = ("coffee", "cat", "rocket", "palace", "flower")  # those that patches, pieces and figures are of
PIECES = (3, 5)  # rows and columns that `write_folder` cuts a photograph into


def load(name: str) -> np.ndarray:
    """Reads a photograph, uint8 (height, width, 3); DistillError if the package that ships it is not installed."""
    return read_file(SHEET[name]["package"], SHEET[name]["file"])


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
SQUARES, SQUARE_SIDE = {"train": 256, "validation": 128, "test": 128}, 96  # of each photograph
_GREYS = 16  # of the digits


def read(name: str, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Reads "digits", "patches" or a split of "photographs": images uint8 (n, side, side[, 3]), and their labels.

    Labels are int32 (n,), and (n, 0) for "photographs", which have none; the squares of a photograph follow one
    another. Raises as `load`.
    """
    if name == "patches":
        labels = np.arange(PATCHES, dtype=np.int32) % len(FILES)
        return _squares([FILES[label] for label in labels], PATCH_SIDE, largest=0.5), labels
    if name == "photographs":
        of_split = [key for key, row in SHEET.items() if row["split"] == split]
        images = _squares(np.repeat(of_split, SQUARES[split]).tolist(), SQUARE_SIDE, largest=1.0)
        return images, np.zeros((len(images), 0), np.int32)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DistillError("scikit-learn is not installed, which ships the digits: pip install scikit-learn.") from None
    digits = load_digits()
    return np.rint(digits.images * (255 / _GREYS)).astype(np.uint8), digits.target.astype(np.int32)


def central(name: str) -> np.ndarray:
    """The central square of a photograph, shrunk as those of `photographs` are, uint8 (96, 96, 3)."""
    from PIL import Image

    picture = Image.fromarray(load(name))
    return _square(picture, SQUARE_SIDE, min(picture.size), 0.5, 0.5)


def _squares(names: Sequence[str], size: int, largest: float) -> np.ndarray:
    """A square of each of these photographs, from `size` to a share `largest` of the shorter side, drawn once."""
    from PIL import Image

    pictures = {name: Image.fromarray(load(name)) for name in dict.fromkeys(names)}
    bits = np.random.Philox(key=np.array([0, 0], np.uint64)).random_raw(3 * len(names)).reshape(-1, 3)
    images = []
    for name, (extent, top, left) in zip(names, bits / 2.0**64, strict=True):
        side = size + extent * (largest * min(pictures[name].size) - size)
        images.append(_square(pictures[name], size, side, top, left))
    return np.stack(images)


def _square(picture: Any, size: int, side: float, top: float, left: float) -> np.ndarray:
    from PIL import Image

    x, y = left * (picture.width - side), top * (picture.height - side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX, (x, y, x + side, y + side)))

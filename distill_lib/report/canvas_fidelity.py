"""What it costs that images in memory are small: crops out of the canvas against crops out of the original.

Where images differ in size, `datasets.arrays` shrinks each until its longer side is that of a canvas, and crops are
rendered from there; streaming crops the original (`stream`). Both resample bilinearly without antialias. Shrinking has
one, so that the two differ even where no pixel is missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distill_lib.crops import Range
from distill_lib.datasets import decode, package_images
from distill_lib.input_pipeline import host_views

if TYPE_CHECKING:
    import pandas as pd

AREAS = (0.05, 0.1, 0.25, 0.5, 1.0)
COLUMNS = ("canvas", "area", "crops", "original_pixels", "canvas_pixels", "enlarged", "difference", "psnr", "detail")


def crops_from_canvas(
    photos: Sequence[np.ndarray] | None = None,
    *,
    canvases: Sequence[int] = (256, 512),
    size: int = 128,
    crops: int = 40,
    edges: Sequence[float] = AREAS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares inception crops out of canvases with the same crops out of the original, by the crops' area.

    Args:
        photos: images uint8 (height, width, 3); None takes those of `package_images`.
        canvases: sides of the canvases, in pixels.
        size: side of the rendered crops, in pixels.
        crops: crops of each image in each bin of area.
        edges: of the bins of area, as fractions of the image, rising; at least two.
        seed: of the crops.

    Returns:
        A row for each canvas and bin: `canvas`, `area` (low, high), `crops` (how many), `original_pixels` and
        `canvas_pixels` (mean side of the cropped region there, as the square root of its pixels), `enlarged` (share of
        the crops that have fewer pixels than they are shown with in the canvas), `difference` (mean absolute, in grey
        levels), `psnr` (in dB, of the mean squared difference) and `detail` (mean difference of neighbouring pixels, as
        a share of that in the crops out of the original).

    Raises:
        DistillError: a package that ships a photograph is not installed.
    """
    import pandas as pd

    shown = [package_images.load(name) for name in package_images.FILES] if photos is None else photos
    boxes = {area: _boxes(shown, area, crops, seed + number) for number, area in enumerate(_bins(edges))}
    rows = []
    for canvas in canvases:
        small = [_in_canvas(photo, canvas) for photo in shown]
        for area, drawn in boxes.items():
            found = [_compare(*each, size) for each in zip(shown, small, drawn, strict=True)]
            rows.append((canvas, area, *_summary(np.concatenate(found))))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _bins(edges: Sequence[float]) -> list[Range]:
    return list(itertools.pairwise(edges))


def _boxes(photos: Sequence[np.ndarray], area: Range, crops: int, seed: int) -> list[np.ndarray]:
    """Boxes of inception crops, float32 (crops, 4) for each photograph, drawn as in training."""
    crop = host_views.Crop(area=area)
    return [
        host_views.sample(
            host_views.step_key(seed, number),
            np.arange(crops),
            crop,
            np.full(crops, photo.shape[1] / photo.shape[0], np.float32),
        ).box
        for number, photo in enumerate(photos)
    ]


def _in_canvas(photo: np.ndarray, canvas: int) -> np.ndarray:
    """What the canvas keeps of a photograph, uint8 (height, width, 3)."""
    fitted, (height, width) = decode.fitted(photo, 3, canvas)
    return fitted[:height, :width]


def _compare(original: np.ndarray, small: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """For each crop of a photograph: sides, whether it is enlarged, mean gap and its square, detail of both, (n, 7)."""
    looks = [decode.Look(box, False, size) for box in boxes]
    rows = []
    for look, one, other in zip(looks, decode.crops(original, looks), decode.crops(small, looks), strict=True):
        share = look.box[2] * look.box[3]
        sides = [math.sqrt(share * math.prod(image.shape[:2])) for image in (original, small)]
        gap = np.abs(one.astype(np.float32) - other)
        rows.append([*sides, sides[1] < size, gap.mean(), np.square(gap).mean(), _detail(one), _detail(other)])
    return np.array(rows, np.float64)


def _detail(crop: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels, in grey levels."""
    return float(np.mean([np.abs(np.diff(crop.astype(np.float32), axis=axis)).mean() for axis in (0, 1)]))


def _summary(found: np.ndarray) -> tuple[int, float, float, float, float, float, float]:
    """The columns from `crops` on, of crops (n, 7) as `_compare` describes them."""
    whole, kept, enlarged, gap, error, detail, other = found.mean(axis=0)
    psnr = 10 * math.log10(255**2 / error) if error else math.inf
    return len(found), whole, kept, enlarged, gap, psnr, other / detail if detail else 1.0

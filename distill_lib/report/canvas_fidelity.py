"""What it costs that images in memory are small: crops out of the canvas against crops out of the original.

Where images differ in size, `datasets.arrays` shrinks each until its longer side is that of a canvas, and crops are
rendered from there; streaming crops the original (`stream`). Both resample bilinearly without antialias. Shrinking has
one, so that the two differ even where no pixel is missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distill_lib.datasets import decode, package_images
from distill_lib.input_pipeline import host_views

AREAS = (0.05, 0.1, 0.25, 0.5, 1.0)
Image = NDArray[np.uint8]


def crops_from_canvas(
    photos: Sequence[Image] | None = None,
    *,
    canvases: Sequence[int] = (256, 512),
    size: int = 128,
    crops: int = 40,
    edges: Sequence[float] = AREAS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares inception crops out of canvases with the same crops out of the original, by the crops' area.

    Photographs are uint8 (height, width, 3), usually those of `package_images`; of each there are `crops` in each bin
    of area between these edges, fractions of the image. Canvases and rendered crops have sides of so many pixels.

    Returns:
        A row for each canvas and bin: `canvas`, `area` (low, high), `crops` (how many), `original_pixels` and
        `canvas_pixels` (mean side of the cropped region there, as the square root of its pixels), `enlarged` (share of
        the crops that have fewer pixels than they are shown with in the canvas), `difference` (mean absolute, in grey
        levels), `psnr` (in dB, of the mean squared difference) and `detail` (mean difference of neighbouring pixels, as
        a share of that in the crops out of the original).

    Raises:
        DistillError: a package that ships a photograph is not installed.
    """
    photos = [package_images.load(name) for name in package_images.FILES] if photos is None else photos
    rows = []
    for canvas, (i, area) in itertools.product(canvases, enumerate(itertools.pairwise(edges))):
        for number, photo in enumerate(photos):
            aspects = np.full(crops, photo.shape[1] / photo.shape[0], np.float32)
            key = host_views.step_key(seed + i, number)
            boxes = host_views.sample(key, np.arange(crops), aspects, area=area).box
            compared = _compare(photo, _in_canvas(photo, canvas), boxes, size)
            rows += [{"canvas": canvas, "area": area} | row for row in compared]
    groups = pd.DataFrame(rows).groupby(["canvas", "area"], sort=False)
    table = groups.mean().assign(crops=groups.size()).reset_index()
    table["detail"] = (table["detail"] / table["own_detail"]).where(table["own_detail"] > 0, 1.0)
    with np.errstate(divide="ignore"):
        return table.assign(psnr=10 * np.log10(255**2 / table["squared"])).drop(columns=["squared", "own_detail"])


def _in_canvas(photo: Image, canvas: int) -> Image:
    """What the canvas keeps of a photograph, uint8 (height, width, 3)."""
    fitted, (height, width) = decode.fitted(photo, 3, canvas)
    return fitted[:height, :width]


def _compare(original: Image, small: Image, boxes: NDArray[np.float32], size: int) -> list[dict[str, float]]:
    """A row for each crop of a photograph."""
    looks, rows = [decode.Look(box, False, size) for box in boxes], []
    for box, own, other in zip(boxes, decode.crops(original, looks), decode.crops(small, looks), strict=True):
        sides = [math.sqrt(box[2] * box[3] * math.prod(image.shape[:2])) for image in (original, small)]
        gap, (own_detail, detail) = np.abs(own.astype(np.float32) - other), map(_detail, (own, other))
        row = {"original_pixels": sides[0], "canvas_pixels": sides[1], "enlarged": float(sides[1] < size)}
        row |= {"difference": float(gap.mean()), "squared": float(np.square(gap).mean())}
        rows.append(row | {"own_detail": own_detail, "detail": detail})
    return rows


def _detail(crop: Image) -> float:
    """Mean absolute difference of neighbouring pixels, in grey levels."""
    return float(np.mean([np.abs(np.diff(crop.astype(np.float32), axis=axis)).mean() for axis in (0, 1)]))

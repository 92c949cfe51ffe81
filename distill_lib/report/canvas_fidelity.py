"""What it costs that images in memory are small: crops out of the canvas against crops out of the original.

Where images differ in size, `datasets.arrays` shrinks each until its longer side is that of a canvas, and crops are
rendered from there; streaming crops the original (`stream`). Both resample bilinearly without antialias. Shrinking has
one, so that the two differ even where no pixel is missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distill_lib.crops import Range
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
    photos = [package_images.load(name) for name in package_images.FILES] if photos is None else photos
    bins = list(itertools.pairwise(edges))
    boxes = [
        [_boxes(each, bins[i], crops, (seed + i, number)) for number, each in enumerate(photos)]
        for i in range(len(bins))
    ]
    rows = []
    for canvas, (area, drawn) in itertools.product(canvases, zip(bins, boxes, strict=True)):
        pairs = zip(photos, (_in_canvas(each, canvas) for each in photos), drawn, strict=True)
        compared = pd.concat([_compare(*pair, size) for pair in pairs])
        means = compared.mean()
        row = {"canvas": canvas, "area": area, "crops": len(compared)} | means.drop(["squared", "own_detail"]).to_dict()
        row["psnr"] = 10 * math.log10(255**2 / means["squared"]) if means["squared"] else math.inf
        rows.append(row | {"detail": means["detail"] / means["own_detail"] if means["own_detail"] else 1.0})
    return pd.DataFrame(rows)


def _boxes(photo: Image, area: Range, crops: int, seed: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes of inception crops, float32 (crops, 4), drawn as in training."""
    aspects = np.full(crops, photo.shape[1] / photo.shape[0], np.float32)
    key = host_views.step_key(*seed)
    return host_views.sample(key, np.arange(crops), aspects, area=area).box


def _in_canvas(photo: Image, canvas: int) -> Image:
    """What the canvas keeps of a photograph, uint8 (height, width, 3)."""
    fitted, (height, width) = decode.fitted(photo, 3, canvas)
    return fitted[:height, :width]


def _compare(original: Image, small: Image, boxes: NDArray[np.float32], size: int) -> pd.DataFrame:
    """A row for each crop of a photograph."""
    looks = [decode.Look(box, False, size) for box in boxes]
    rows: list[dict[str, Any]] = []
    for look, own, other in zip(looks, decode.crops(original, looks), decode.crops(small, looks), strict=True):
        sides = [math.sqrt(look.box[2] * look.box[3] * math.prod(image.shape[:2])) for image in (original, small)]
        gap = np.abs(own.astype(np.float32) - other)
        row = {"original_pixels": sides[0], "canvas_pixels": sides[1], "enlarged": sides[1] < size}
        row |= {"difference": float(gap.mean()), "squared": float(np.square(gap).mean())}
        rows.append(row | {"own_detail": _detail(own), "detail": _detail(other)})
    return pd.DataFrame(rows)


def _detail(crop: Image) -> float:
    """Mean absolute difference of neighbouring pixels, in grey levels."""
    return float(np.mean([np.abs(np.diff(crop.astype(np.float32), axis=axis)).mean() for axis in (0, 1)]))

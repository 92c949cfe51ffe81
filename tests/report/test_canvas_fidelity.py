"""What crops out of a canvas lack: nothing where nothing was shrunk, more the smaller the canvas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from distill_lib.datasets import package_images
from distill_lib.report import canvas_fidelity

EDGES = (0.1, 0.4, 1.0)


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """Noise, which any shrinking changes."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def compare(*photos: np.ndarray, **options) -> pd.DataFrame:
    """Three small crops of each photograph."""
    return canvas_fidelity.crops_from_canvas(photos, **({"size": 8, "crops": 3, "edges": EDGES} | options))


def test_a_canvas_of_the_photographs_own_size_costs_nothing() -> None:
    """The same pixels give the same crops: neither the boxes nor the renderer add anything of their own."""
    table = compare(photo(), photo(60, 50), canvases=(60,))
    assert {"canvas", "area", "crops", "enlarged", "difference", "psnr", "detail"} <= set(table)
    assert (table["difference"] == 0).all() and np.isinf(table["psnr"]).all()
    np.testing.assert_allclose(table["detail"], 1)
    np.testing.assert_allclose(table["canvas_pixels"], table["original_pixels"])
    assert list(table["crops"]) == [6, 6]


def test_a_smaller_canvas_costs_more() -> None:
    """Difference rises, and detail falls, with every pixel that is missing; crops enlarged from the canvas are told."""
    table = compare(photo(), canvases=(15, 30), size=12)
    small, large = (table[table["canvas"] == canvas].reset_index() for canvas in (15, 30))
    assert (small["difference"] > large["difference"]).all() and (small["psnr"] < large["psnr"]).all()
    assert (small["detail"] < large["detail"]).all() and (large["detail"] < 1).all()
    np.testing.assert_allclose(large["canvas_pixels"], large["original_pixels"] / 2)
    assert (small["enlarged"] == 1).all() and large["enlarged"][1] < 1


def test_psnr_and_difference_are_their_plain_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canvas that is darker by three grey levels everywhere."""
    monkeypatch.setattr(canvas_fidelity, "_in_canvas", lambda image, canvas: image - np.uint8(3))
    table = compare(np.full((20, 30, 3), 100, np.uint8), canvases=(30,))
    np.testing.assert_allclose(table["difference"], 3)
    np.testing.assert_allclose(table["psnr"], 20 * np.log10(255 / 3))
    assert (table["detail"] == 1).all()


def test_crops_have_the_areas_that_the_table_says() -> None:
    """Each bin holds crops of its own areas only, as the mean side in the original tells."""
    table = compare(photo(), canvases=(30,), crops=20)
    assert list(table["area"]) == [(0.1, 0.4), (0.4, 1.0)]
    for (low, high), side in zip(table["area"], table["original_pixels"], strict=True):
        assert np.sqrt(low * 2400) < side < np.sqrt(high * 2400)


def test_the_same_seed_draws_the_same_crops() -> None:
    """A page that is built again shows the same numbers."""
    first, again, other = (compare(photo(), canvases=(30,), seed=seed) for seed in (0, 0, 5))
    pd.testing.assert_frame_equal(first, again)
    assert (first["difference"] != other["difference"]).all()


def test_photographs_that_are_shipped_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The book's table needs no download."""
    monkeypatch.setattr(package_images, "FILES", {"cat": package_images.FILES["cat"]})
    table = canvas_fidelity.crops_from_canvas(canvases=(64,), size=8, crops=2, edges=EDGES)
    assert list(table["crops"]) == [2, 2] and (table["difference"] > 1).all()

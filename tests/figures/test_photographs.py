"""Photographs that installed packages ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill_lib import figures
from distill_lib.datasets import package_images
from distill_lib.errors import DistillError
from distill_lib.figures import style


@pytest.mark.parametrize("name", package_images.FILES)
def test_a_photograph_is_there_and_its_middle_is_shown(name: str) -> None:
    """No download; the evaluation view is the central square, so a bright frame around the image must not show."""
    image = package_images.load(name)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    shown = figures.photographs.central(image, 64)
    assert shown.shape == (1, 64, 64, 3) and shown.min() >= -1 and shown.max() <= 1
    side = int(min(image.shape[:2]) * figures.photographs.EVALUATION_SIDE)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    middle = image[top : top + side, left : left + side] / 127.5 - 1
    assert abs(float(shown.mean()) - float(middle.mean())) < 0.02


def test_the_folder_of_pieces_is_written_once(tmp_path: Path) -> None:
    """A class for each photograph, and pieces that lie side by side."""
    from PIL import Image

    folder = package_images.write_folder(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.png")}
    assert len(written) == 75 and {path.parent.name for path in written} == set(package_images.FILES)
    first = np.asarray(Image.open(folder / "coffee" / "00.png"))
    np.testing.assert_array_equal(first, package_images.load("coffee")[:133, :120])
    package_images.write_folder(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*.png")} == written


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(package_images.SHEET["coffee"], "package", "skimage_that_is_not_there")
    with pytest.raises(DistillError, match="skimage_that_is_not_there is not installed.*requirements.txt"):
        package_images.load("coffee")


def test_the_picture_of_guesses_shows_the_likeliest_three() -> None:
    """Names where there are any, numbers elsewhere, best first."""
    images = [np.zeros((8, 8, 3), np.float32)] * 2
    predicted = np.array([[0.1, 0.6, 0.3, 0.0], [0.0, 0.2, 0.1, 0.7]])
    figure = figures.views.recognised(images, predicted, {1: "one", 3: "three"})
    assert isinstance(figure, style.Raster)
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes if axes.texts]
    assert said == [["one 60%", "class 2 30%", "class 0 10%"], ["three 70%", "one 20%", "class 2 10%"]]

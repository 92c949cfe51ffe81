"""Pictures of views: they show what training shows."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from distill_lib import figures, views
from distill_lib.figures import style

PAIRS = 2


@pytest.fixture(scope="module")
def policies() -> style.Raster:
    """The grid of policies, for noise images of the embedded size."""
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    figure = figures.views.policies(images, seed=16, steps=PAIRS, area=(0.25, 1.0))
    assert isinstance(figure, style.Raster)
    return figure


def rows(figure: style.Raster) -> dict[str, list[Axes]]:
    """The pictures of each policy, teacher and student in turn."""
    shown = [axes for axes in figure.axes if axes.images]
    each = 2 * PAIRS
    return {key: shown[each * row : each * (row + 1)] for row, key in enumerate(views.POLICIES)}


def pixels(axes: Axes) -> np.ndarray:
    """What is drawn in one picture."""
    return np.asarray(axes.images[0].get_array())


def test_consistent_policies_show_both_the_same_and_others_do_not(policies: style.Raster) -> None:
    for key, pictures_of in rows(policies).items():
        for teacher, student in zip(pictures_of[::2], pictures_of[1::2], strict=True):
            same = np.array_equal(pixels(teacher), pixels(student))
            assert same == (key.startswith("same/") or key in ("mix", "fix/rs")), key


def test_only_fixed_teachers_see_the_same_in_every_step(policies: style.Raster) -> None:
    for key, pictures_of in rows(policies).items():
        first, second = (pixels(axes) for axes in pictures_of[::2])
        assert np.array_equal(first, second) == key.startswith("fix/"), key


def test_the_signs_say_what_the_pictures_show(policies: style.Raster) -> None:
    """One sign a pair, computed."""
    signs = [text.get_text() for axes in policies.axes for text in axes.texts if text.get_text() in "=\N{NOT EQUAL TO}"]
    wanted = [
        "=" if key.startswith("same/") or key in ("mix", "fix/rs") else "\N{NOT EQUAL TO}" for key in views.POLICIES
    ]
    assert signs == [sign for sign in wanted for _ in range(PAIRS)]


def test_pictures_show_themselves_as_png(policies: style.Raster) -> None:
    assert policies._repr_png_().startswith(b"\x89PNG")

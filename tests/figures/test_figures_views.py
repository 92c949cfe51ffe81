"""Pictures of views and of the method: they show what training shows."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from matplotlib.axes import Axes

from distill_lib import datasets, figures, recipes, teachers, views, weights
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


def test_pictures_of_the_data() -> None:
    """The classes, a row for each in one picture."""
    small = np.zeros((20, 4, 4, 1), np.uint8)
    assert len(figures.views.classes(small, np.arange(20) % 2, ["a", "b"], each=5).axes) == 1


def test_softened_answers_are_softer_and_sum_to_one() -> None:
    table = figures.method.softened(np.array([4.0, 1.0, 0.0]), ["a", "b", "c"], (1, 5, 10))
    np.testing.assert_allclose(table.sum(), 1, atol=1e-6)
    assert table.loc["a"].is_monotonic_decreasing and table.loc["c"].is_monotonic_increasing


def test_the_factor_keeps_the_gradients_size() -> None:
    """With T^2 its limit is the centred difference of logits over the classes; without, it falls like 1 / T^2."""
    teacher = np.random.default_rng(0).normal(0, 3, (5, 10)).astype(np.float32)
    table = figures.method.gradient_sizes(np.zeros((5, 10), np.float32), teacher, [100.0, 1000.0])
    limit = np.linalg.norm((teacher - teacher.mean(1, keepdims=True)) / 10, axis=1).mean()
    np.testing.assert_allclose(table["with_factor"], limit, rtol=0.05)
    np.testing.assert_allclose(table["without_factor"] * table["temperature"] ** 2, table["with_factor"], rtol=1e-6)


def test_explaining_figures_draw() -> None:
    """Each shows itself, and the schedules are those of the presets."""
    names = datasets.get("fashion").class_names
    logits = np.random.default_rng(0).normal(0, 3, (4, 10)).astype(np.float32)
    table = figures.method.softened(logits[0], names)
    gradients = figures.method.gradient_sizes(np.zeros_like(logits), logits, [0.5, 1, 2, 20])
    figures.method.temperature(table, gradients).draw_without_rendering()
    presets = {name: recipes.get("fashion", name) for name in ("quick", "short")}
    figure = figures.method.schedules(presets)
    figure.draw_without_rendering()
    assert [line.get_label() for line in figure.axes[0].lines] == [
        f"{name}, {recipe.steps(1020):,} steps" for name, recipe in presets.items()
    ]
    blend = table.T.reset_index(drop=True).assign(weight=[0.0, 0.3, 0.6, 1.0])
    figures.method.between(blend, "Ankle boot", "Trouser").draw_without_rendering()


def test_parameters_are_counted() -> None:
    """As many as lie in the embedded teacher's file."""
    params = weights.load_npz(teachers.EMBEDDED["fashion"])
    counted = figures.method.parameter_count(recipes.get("fashion_teacher", "full"), 10, 1)
    assert counted == sum(leaf.size for leaf in jax.tree.leaves(params))

"""What teacher and student are shown, by the functions that training uses; nothing here comes from a run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill_lib import views
from distill_lib.crops import Range
from distill_lib.figures.style import FAINT, INK, WIDTH, Raster, styled

if TYPE_CHECKING:
    from distill_lib.teachers import Teacher

TEACHER, STUDENT = "#5d3a9b", "#0e8ba0"  # frames of what each of them sees
_render = jax.jit(views.render, static_argnums=2)
MOSAIC = 4  # crops along a side of the picture that stands for a mean over many


@styled
def policies(images: np.ndarray, *, seed: int, steps: int = 3, size: int = 28, area: Range = (0.05, 1.0)) -> Figure:
    """What teacher and student see of the first of images (batch, height, width, channels), by policy and step."""
    rows = len(views.POLICIES)
    figure = Raster(figsize=(WIDTH, 0.93 * rows + 0.5))
    widths = [2.8, *[width for _ in range(steps) for width in (1, 0.24, 1, 0.3)]][:-1]
    place = {"left": 0.0, "right": 0.995, "top": 0.945, "bottom": 0.005, "wspace": 0.04, "hspace": 0.12}
    grid = figure.add_gridspec(rows, len(widths), width_ratios=widths, **place)
    for row, (key, policy) in enumerate(views.POLICIES.items()):
        name = figure.add_subplot(grid[row, 0])
        name.set_axis_off()
        name.text(0, 0.58, views.NAMES[key], va="bottom", color=INK, fontsize=8)
        name.text(0, 0.46, key, va="top", color=FAINT, fontsize=8, family="monospace")
        for step in range(steps):
            teacher_sees, student_sees = _step(images, policy, seed, step, size, area)
            left, between, right = (figure.add_subplot(grid[row, 1 + 4 * step + part]) for part in range(3))
            between.set_axis_off()
            sign = "=" if np.array_equal(teacher_sees, student_sees) else "\N{NOT EQUAL TO}"
            between.text(0.5, 0.5, sign, ha="center", va="center", color=INK if sign == "=" else FAINT, fontsize=12)
            show(left, teacher_sees, TEACHER)
            show(right, student_sees, STUDENT)
            if row == 0:
                left.set_title("teacher", loc="center", color=TEACHER, fontsize=8, pad=3)
                right.set_title("student", loc="center", color=STUDENT, fontsize=8, pad=3)
                left.text(1.12, 1.42, f"step {step + 1}", transform=left.transAxes, ha="center", color=INK)
    return figure


@styled
def recognised(
    images: Sequence[np.ndarray], predicted: np.ndarray, names: Mapping[int, str], *, colour: str = TEACHER
) -> Figure:
    """Images (size, size, channels) in [-1, 1], each with the likeliest three of (images, classes), named by number."""
    figure = Raster(figsize=(WIDTH, 2.2))
    place = {"left": 0.005, "right": 0.995, "top": 0.99, "bottom": 0.02, "hspace": 0.06, "wspace": 0.08}
    grid = figure.add_gridspec(2, len(images), height_ratios=(1.75, 1), **place)
    for column, (image, shares) in enumerate(zip(images, predicted, strict=True)):
        show(figure.add_subplot(grid[0, column]), image, colour)
        best = shares.argsort()[::-1][:3]
        axes = figure.add_subplot(grid[1, column])
        axes.barh(range(len(best)), shares[best], color=colour, alpha=0.3, height=0.86)
        for row, index in enumerate(best):
            label = f"{names.get(int(index), f'class {index}')} {shares[index]:.0%}"
            axes.text(0.02, row, label, va="center", color=INK, fontsize=8)
        axes.set(xlim=(0, 1), ylim=(2.6, -0.6), xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure


def origin(function: str | None = None, seed: int | None = None, teacher: "Teacher | None" = None) -> str:
    """The line under a picture that no run made: how to draw it again; without a function, by the page's own code."""
    by = f"distill_lib.{function}" if function else "the code above"
    how = "" if seed is None else f" with seed {seed}"
    asked = "" if teacher is None else f"; teacher {teacher.name}, checkpoint {teacher.sha256[:8]}"
    return f"No run: drawn{how} by {by} while this page was built{asked}."


def show(axes: Axes, image: np.ndarray, frame: str) -> None:
    """Shows one rendered image, (height, width, channels) in [-1, 1], in a coloured frame."""
    pixels = np.clip((np.asarray(image) + 1) / 2, 0, 1)
    grey = {"cmap": "gray_r", "vmin": 0, "vmax": 1} if pixels.shape[-1] == 1 else {}
    axes.imshow(pixels[..., 0] if grey else pixels, interpolation="nearest", **grey)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=frame, linewidth=1.6)


def _step(
    images: np.ndarray, policy: views.Policy, seed: int, step: int, size: int, area: Range
) -> tuple[np.ndarray, np.ndarray]:
    """What teacher and student see of the first image in one step; a fixed teacher sees the same in every step."""
    options = {"area": area, "image_aspect": images.shape[2] / images.shape[1]}
    key = jax.random.fold_in(jax.random.key(seed), step)
    teacher_view, student_view = views.pair(key, policy, len(images), **options)
    student_sees = np.asarray(_render(images, student_view, size))[0]
    if policy.relation != "fixed":
        return np.asarray(_render(images, teacher_view, size))[0], student_sees
    assert policy.teacher is not None
    if policy.teacher == "inception_mean":
        side = size // MOSAIC
        tiles = _draws(images[0], seed, MOSAIC * MOSAIC, side, flip=False, **options)
        rows = tiles.reshape(MOSAIC, MOSAIC, side, side, -1).swapaxes(1, 2)
        return rows.reshape(MOSAIC * side, MOSAIC * side, -1), student_sees
    return _draws(images[0], seed, 1, size, crop=policy.teacher, flip=False, **options)[0], student_sees


def _draws(image: np.ndarray, seed: int, count: int, size: int, **options: Any) -> np.ndarray:
    """Several rendered views of one image, drawn two by two: batches of one size everywhere are compiled once."""
    batch, parts = np.repeat(image[None], 2, axis=0), []
    for pair in range((count + 1) // 2):
        view = views.sample(jax.random.fold_in(jax.random.key(seed), pair), 2, **options)
        parts.append(np.asarray(_render(batch, view, size)))
    return np.concatenate(parts)[:count]

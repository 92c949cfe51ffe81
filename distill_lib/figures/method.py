"""Figures that explain the method: computed from the library's own functions while the book is built, not from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from distill_lib import datasets, losses, models, optim
from distill_lib.figures.style import FAINT, INK, label_ends, panels, styled
from distill_lib.figures.views import TEACHER
from distill_lib.models import flops
from distill_lib.recipes import Recipe

TEMPERATURES = (1, 2, 5, 10)
LIGHT = "#b08fd8"  # a light shade of the teacher's colour


def parameter_count(recipe: Recipe, num_classes: int, channels: int) -> int:
    """Number of parameters of a recipe's student."""
    shape = (recipe.resolution, recipe.resolution, channels)
    return flops.parameters(models.create(recipe.student, num_classes), shape)


def softened(logits: np.ndarray, names: Sequence[str], temperatures: Sequence[float] = TEMPERATURES) -> pd.DataFrame:
    """Probabilities of one prediction, logits (classes,), a row a class, at several temperatures, a column each."""
    columns = {temperature: np.asarray(jax.nn.softmax(logits / temperature)) for temperature in temperatures}
    return pd.DataFrame(columns, index=list(names))


def gradient_sizes(
    student_logits: np.ndarray, teacher_logits: np.ndarray, temperatures: Sequence[float]
) -> pd.DataFrame:
    """Mean length of the loss's gradient in the student's logits, with the factor T^2 and without it.

    Logits are (images, classes); columns temperature, with_factor and without_factor.
    """
    teacher = jnp.asarray(teacher_logits)
    gradient = jax.jit(jax.grad(lambda student, t: losses.kl(student, teacher, temperature=t).sum()))
    rows = []
    for temperature in temperatures:
        size = float(jnp.linalg.norm(gradient(jnp.asarray(student_logits), temperature), axis=-1).mean())
        rows.append({"temperature": temperature, "with_factor": size, "without_factor": size / temperature**2})
    return pd.DataFrame(rows)


@styled
def temperature(prediction: pd.DataFrame, gradients: pd.DataFrame) -> Figure:
    """A prediction that gets softer, of `softened`, and what that does to the gradient, of `gradient_sizes`."""
    figure, (left, right) = panels(2, height=3.4, width_ratios=(1.25, 1))
    places, thickness = np.arange(len(prediction)), 0.8 / len(prediction.columns)
    shades = np.linspace(0.95, 0.25, len(prediction.columns))
    for i, (value, shade) in enumerate(zip(prediction.columns, shades, strict=True)):
        offset = (i - (len(shades) - 1) / 2) * thickness
        left.barh(places + offset, prediction[value], thickness, color=TEACHER, alpha=shade, label=f"T = {value:g}")
    left.set(yticks=places, yticklabels=prediction.index, title="the teacher's answer to one image", xlim=(0, 1))
    left.invert_yaxis()
    left.xaxis.set_major_formatter(PercentFormatter(1))
    left.grid(False, axis="y")
    left.legend(loc="center right")
    right.set(xscale="log", yscale="log", xlabel="temperature T", title="size of the gradient")
    beside = {"xycoords": ("axes fraction", "data"), "va": "center"}
    for column, text, colour in (("with_factor", "with $T^2$", INK), ("without_factor", "without", FAINT)):
        right.plot(gradients["temperature"], gradients[column], color=colour)
        right.annotate(text, (1.03, gradients[column].iloc[-1]), color=colour, **beside)
    right.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20]))
    right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter("{x:g}")
    return figure


@styled
def schedules(recipes: Mapping[str, Recipe]) -> Figure:
    """The multiplier of learning rate and weight decay, and what weight decay leaves of a weight, of named recipes."""
    figure, (left, right) = panels(2, height=3.0)
    ends, images = [], datasets.get("fashion").counts["train"]
    every = jnp.arange(max(recipe.steps(images) for recipe in recipes.values()) + 1)
    for shade, (name, recipe) in zip(np.linspace(0.35, 1, len(recipes)), recipes.items(), strict=True):
        total = recipe.steps(images)
        steps = np.arange(total + 1)
        multiplier = np.asarray(optim.multiplier("cosine", total, recipe.warmup_steps)(every), float)[: total + 1]
        label = f"{name}, {total:,} steps"
        left.plot(steps / total, multiplier, color=INK, alpha=shade, label=label)
        kept = np.cumprod(1 - recipe.weight_decay * multiplier)
        right.plot(steps[1:], kept[1:], color=INK, alpha=shade)
        ends.append(kept)
    scaled = np.cumprod(1 - recipe.weight_decay * recipe.learning_rate * multiplier)
    right.plot(steps[1:], scaled[1:], "--", color=FAINT)
    left.legend(loc="lower left", bbox_to_anchor=(0.06, 0.0), handlelength=1.2)
    left.set(xlabel="share of the run", title="multiplier of rate and decay")
    left.xaxis.set_major_formatter(PercentFormatter(1))
    right.set(xlabel="step", xscale="log", title="what decay alone leaves of a weight", ylim=(0, 1.05))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    label_ends(right, [(ends[-1][-1], "as here", INK), (scaled[-1], "times learning\nrate (AdamW)", FAINT)])
    return figure


@styled
def between(answers: pd.DataFrame, first: str, second: str) -> Figure:
    """A teacher's answer to a blend of two images, beside the blend of two labels.

    A column `weight` of the answers is the share of the first image; each class has a column of probabilities.
    """
    figure, (axes,) = panels(1, height=3.0)
    rest = answers.drop(columns=["weight", first, second]).sum(axis=1)
    colours = {first: TEACHER, second: LIGHT}
    lines = [(first, answers[first]), (second, answers[second]), ("any other class", rest)]
    ends = [(float(values.iloc[-1]), name, colours.get(name, FAINT)) for name, values in lines]
    for name, values in lines:
        axes.plot(answers["weight"], values, color=colours.get(name, FAINT))
    axes.plot([0, 1], [0, 1], ":", color=colours[first], linewidth=1)
    axes.plot([0, 1], [1, 0], ":", color=colours[second], linewidth=1)
    axes.set(xlabel=f"share of the {first.lower()} in the blend", ylabel="probability", ylim=(-0.03, 1.03))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    label_ends(axes, ends)
    return figure

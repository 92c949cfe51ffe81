"""A network, a teacher and a recipe so small that a test can afford whole trainings; not a test itself."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from distill_lib import models, recipes, weights
from distill_lib.models import bit

STUDENT = "bit_r5w8"
SIDE = 8  # pixels


class Linear(nn.Module):
    """Logits that are a linear map of the pixels: every pixel counts by its place, and nothing takes long."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes)."""
        shape = (int(np.prod(images.shape[1:])), self.num_classes)
        return images.reshape(len(images), -1) @ self.param("kernel", nn.initializers.normal(), shape)


def linear(num_classes: int, pixels: int, seed: int = 0) -> tuple[Linear, dict]:
    """A `Linear` model and its variables."""
    kernel = np.random.default_rng(seed).normal(0, 0.3, (pixels, num_classes)).astype(np.float32)
    return Linear(num_classes), {"params": {"kernel": kernel}}


def register() -> None:
    """Makes `STUDENT` known: one residual unit of width 8."""
    bit.SMALL_STAGES[5] = (1,)


def random_params(name: str, num_classes: int, *, channels: int = 1, seed: int = 0) -> dict:
    """Parameters of a model, drawn by NumPy, so that nothing is compiled; its predictions differ between images."""
    shapes = models.shapes(models.create(name, num_classes), (SIDE, SIDE, channels))["params"]
    numbers = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: numbers.normal(0.1, 1, leaf.shape).astype(np.float32), shapes)


def write_teacher(path: Path) -> Path:
    """Writes a teacher of `STUDENT`'s size for ten classes of grey images."""
    register()
    weights.save_npz(path, random_params(STUDENT, 10), {"model": STUDENT})
    return path


def recipe(teacher: Path | str, **settings) -> recipes.Recipe:
    """Forty steps on 64 made-up images of 8 x 8 pixels, reported four times."""
    usual = {
        "policy": "same/ic",
        "student": STUDENT,
        "teacher": str(teacher),
        "epochs": 10,
        "batch_size": 16,
        "resolution": SIDE,
        "learning_rate": 1e-2,
        "warmup_steps": 4,
        "evaluations": 4,
    }
    return recipes.get("fashion", "smoke", **(usual | settings))

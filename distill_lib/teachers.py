"""A teacher is logits(images): a frozen model, or a table of outputs that were computed once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import checkpoints, models, views
from distill_lib.errors import DistillError, unknown

EMBEDDED = {"fashion": Path(__file__).parent / "data" / "teachers" / "fashion_bit_r11w24.npz"}
"""Teachers that come with the package, by name."""

PUBLISHED = (
    "R152x2_T_224",
    "R152x2_T_384",
    "R152x2_T_flowers128",
    "R152x2_T_pet128",
    "R152x2_T_food128",
    "R152x2_T_sun128",
)
"""The paper's published teachers; give the path of a downloaded file instead of the name."""

MOCK = "mock"
"""Name of the teacher with random weights that smoke runs on mock data learn from."""


@dataclass(frozen=True)
class Teacher:
    """A frozen network.

    Attributes:
        name: how it was asked for.
        model: the module.
        params: its parameters.
        sha256: of the checkpoint file; part of the identity of every run that learns from it.
    """

    name: str
    model: Any
    params: dict
    sha256: str

    def logits(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Maps images (batch, size, size, colours), float32 in [-1, 1], to logits (batch, classes)."""
        return models.logits(self.model, self.params, jnp.asarray(images))


def load(name: str, *, num_classes: int, colours: int, resolution: int) -> Teacher:
    """Loads a teacher.

    Args:
        name: a name in `EMBEDDED`, the path of an .npz that names its model, or "mock".
        num_classes: classes of the data set it is to teach.
        colours: colour channels of the images.
        resolution: height and width of the views it will see.

    Returns:
        The teacher.

    Raises:
        DistillError: if it is unknown, not at hand, damaged, or does not fit the data.
    """
    if name == MOCK:
        return _mock(num_classes, colours, resolution)
    if name in PUBLISHED:
        raise DistillError(
            f"the published teacher {name} is not at hand: download {name}.npz from the BiT distillation release and "
            "give its path as teacher."
        )
    path = EMBEDDED.get(name, Path(name))
    if name not in EMBEDDED and path.suffix != ".npz":
        raise unknown("teacher", name, [*EMBEDDED, *PUBLISHED, MOCK, "a path ending in .npz"])
    params = checkpoints.load_npz(path)
    metadata = checkpoints.load_metadata(path)
    if "model" not in metadata:
        raise DistillError(f"{path} does not say which model it holds; save it with metadata={{'model': ...}}.")
    model = models.create(metadata["model"], num_classes)
    return Teacher(name, model, _checked(params, model, colours, resolution, str(path)), checkpoints.sha256(path))


def fixed_logits(
    teacher: Teacher, images: np.ndarray, policy: views.Policy, *, resolution: int, area, crops: int, temperature: float
) -> np.ndarray:
    """Outputs of a fixed teacher, computed once for each image (the paper's `fix/*`).

    A mean over crops is the mean of the predictions at the given temperature; it is returned as logits whose softmax at
    that temperature is this mean.

    Args:
        teacher: the teacher.
        images: (n, height, width, colours) uint8.
        policy: a policy with a fixed teacher.
        resolution: height and width to render at, in pixels.
        area: smallest and largest area of an inception crop, as fractions of the image.
        crops: inception crops of each image, for the mean.
        temperature: T of the distillation loss.

    Returns:
        (n, classes) float32.
    """
    if policy.teacher is None:
        raise DistillError("a baseline without a teacher has no fixed outputs.")
    mean_over_crops = policy.teacher == "inception_mean"
    crop = "inception" if mean_over_crops else policy.teacher
    aspect = images.shape[2] / images.shape[1]

    @jax.jit
    def prediction(params: dict, chunk: jax.Array, key: jax.Array) -> jax.Array:
        view = views.sample(key, len(chunk), crop=crop, flip=False, area=area, image_aspect=aspect)
        return jax.nn.softmax(models.logits(teacher.model, params, views.render(chunk, view, resolution)) / temperature)

    chunks = []
    for start in range(0, len(images), 512):
        chunk = jnp.asarray(images[start : start + 512])
        total = 0.0
        for number in range(crops if mean_over_crops else 1):
            total += prediction(teacher.params, chunk, jax.random.fold_in(jax.random.key(start), number))
        chunks.append(np.asarray(total) / (crops if mean_over_crops else 1))
    return temperature * np.log(np.maximum(np.concatenate(chunks), np.finfo(np.float32).tiny))


def _checked(params: dict, model: Any, colours: int, resolution: int, source: str) -> dict:
    image = jax.ShapeDtypeStruct((1, resolution, resolution, colours), jnp.float32)
    expected = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    return jax.tree.map(jnp.asarray, checkpoints.match(params, expected, source))


def _mock(num_classes: int, colours: int, resolution: int) -> Teacher:
    model = models.create("bit_r11w8", num_classes)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, resolution, resolution, colours)))["params"]
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    return Teacher(MOCK, model, params, "mock")

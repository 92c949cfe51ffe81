"""A view is a value: what exactly a network is shown of a batch of images.

`sample` draws a `View`, `render` shows it. Teacher and student are consistent because they render the same `View`.
Beyer et al., CVPR 2022, section 3.1 and Fig. 2; Szegedy et al., CVPR 2015, section 6 (inception crop); Zhang et al.,
ICLR 2018 (mixup).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import crops
from distill_lib.crops import CROPS, DRAWS, Range
from distill_lib.errors import unknown

MIXUPS = ("batch", "example")


class View(NamedTuple):
    """What is shown of each image of a batch."""

    box: jax.Array  #: (batch, 4) float32: top, left, height and width of the crop, as fractions of the image
    flip: jax.Array  #: (batch,) bool, whether the crop is mirrored left-right
    weight: jax.Array | None = None  #: (batch,) float32, the own image's share (mixup); the next one's is the rest


@dataclass(frozen=True)
class Policy:
    """What teacher and student see: a row of the paper's Fig. 2."""

    teacher: str | None  #: the teacher's crop; "inception_mean" is the mean prediction over many, None is no teacher
    relation: str  #: "none" (no teacher), "fixed" (asked once), "independent" (two draws) or "same" (one)
    student: str  #: the student's crop
    name: str  #: the policy in words, as figures print it
    mix: bool = False  #: whether images are mixed by mixup

    @property
    def flip(self) -> bool:
        """Whether crops are mirrored at random: with every policy but the fixed ones (Fig. 2)."""
        return self.relation != "fixed"


POLICIES = {
    # key                  teacher           relation       student
    "fix/rs": Policy("whole", "fixed", "whole", "fixed teacher, whole image"),
    "fix/cc": Policy("central", "fixed", "mild", "fixed teacher, central crop"),
    "fix/ic_ens": Policy("inception_mean", "fixed", "inception", "fixed teacher, mean over crops"),
    "ind/rc": Policy("mild", "independent", "mild", "independent mild crops"),
    "ind/ic": Policy("inception", "independent", "inception", "independent crops"),
    "same/rc": Policy("mild", "same", "mild", "same mild crop"),
    "same/ic": Policy("inception", "same", "inception", "consistent teaching"),
    "mix": Policy("inception", "same", "inception", "function matching", mix=True),
}
"""The paper's eight policies (Figs. 2, 3 and 9-12), under the keys of its figures."""

BASELINES = {
    "labels": Policy(None, "none", "inception", "labels"),
    "labels/mix": Policy(None, "none", "inception", "labels + mixup", mix=True),
    "labels/rc": Policy(None, "none", "mild", "labels, mild crops"),
    "labels/rc/mix": Policy(None, "none", "mild", "labels, mild crops + mixup", mix=True),
}
"""Training from hard labels, without a teacher: students (the paper's Fig. 7), and with mild crops teachers (BiT)."""

NAMES = {key: policy.name for key, policy in (POLICIES | BASELINES).items()}
"""Policies in words."""


def policy(key: str) -> Policy:
    """Looks up a policy or a baseline; raises DistillError for an unknown key."""
    known = POLICIES | BASELINES
    if key not in known:
        raise unknown("policy", key, known)
    return known[key]


def sample(
    key: jax.Array,
    batch_size: int,
    *,
    crop: str = "inception",
    flip: bool = True,
    mixup: str | None = None,
    beta: float = 1.0,
    folded: bool = False,
    area: Range = (0.05, 1.0),
    aspect: Range = (3 / 4, 4 / 3),
    whole: float = 0.0,
    image_aspect: jax.Array | float = 1.0,
) -> View:
    """Draws a view of each image of a batch, from the key and its position in the global batch alone.

    The crop is one of `CROPS`, and half of them are mirrored if they `flip`. Inception crops have between the smallest
    and the largest `area` of the image, and of `aspect`, width / height in pixels; a share of `whole` images are not
    cropped. Mixup is None, "batch" (one lambda for all) or "example" (one for each), lambda ~ Beta(p, p) with p =
    `beta`, or `folded` max(lambda, 1 - lambda), as in the released code. `image_aspect` is width / height of the
    images, a number or (batch,). DistillError for an unknown crop or mixup.
    """
    if crop not in CROPS:
        raise unknown("crop", crop, CROPS)
    if mixup is not None and mixup not in MIXUPS:
        raise unknown("mixup", mixup, MIXUPS)
    uniform = numbers(key, batch_size)
    ratio = jnp.broadcast_to(jnp.asarray(image_aspect, jnp.float32), (batch_size,))
    box, flips = crops.draw(jnp, uniform, ratio, crop=crop, flip=flip, area=area, aspect=aspect, whole=whole)
    weight = None
    if mixup:
        weight = uniform[:, 2]
        if beta != 1:  # never from the draws of boxes
            own_keys = _keys(key, batch_size)
            weight = jax.vmap(lambda own: jax.random.beta(jax.random.fold_in(own, 1), beta, beta))(own_keys)
        weight = jnp.broadcast_to(weight[0], (batch_size,)) if mixup == "batch" else weight
        weight = jnp.maximum(weight, 1 - weight) if folded else weight
    return View(box, flips, weight)


def view_key(seed: int) -> jax.Array:
    """The key that all views of a run are drawn from; never that of the initialisation."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def numbers(key: jax.Array, batch_size: int) -> jax.Array:
    """What views are drawn from, (batch, DRAWS) float32 in [0, 1): of a key and the position in the batch alone."""
    return jax.vmap(lambda own: jax.random.uniform(own, (DRAWS,)))(_keys(key, batch_size))


def _keys(key: jax.Array, batch_size: int) -> jax.Array:
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(jnp.arange(batch_size))


def teacher_key(key: jax.Array) -> jax.Array:
    """The key of the teacher's own view in a step, of an independent policy."""
    return jax.random.fold_in(key, crops.NO_POSITION)


def still(batch_size: int, *, side: float = 1.0, image_aspect: jax.Array | float = 1.0) -> View:
    """The view without randomness: the central square, its side a fraction of the image's shorter one."""
    ratio = jnp.broadcast_to(jnp.asarray(image_aspect, jnp.float32), (batch_size,))
    height = side * jnp.minimum(ratio, 1.0)
    width = side * jnp.minimum(1.0 / ratio, 1.0)
    box = jnp.stack([(1 - height) / 2, (1 - width) / 2, height, width], axis=-1)
    return View(box, jnp.zeros(batch_size, bool))


def pair(key: jax.Array, policy: Policy, batch_size: int, *, mixup: str = "batch", **options: Any) -> tuple[View, View]:
    """The views of teacher and student for one step, as of `sample`, the same but of independent policies; may mix."""
    options |= {"flip": policy.flip, "mixup": mixup if policy.mix else None}
    student = sample(key, batch_size, crop=policy.student, **options)
    if policy.relation != "independent":
        return student, student
    assert policy.teacher is not None
    return sample(teacher_key(key), batch_size, crop=policy.teacher, **options), student


def render(
    images: jax.Array | np.ndarray, view: View, size: int, extents: jax.Array | np.ndarray | None = None
) -> jax.Array:
    """Shows a view of size x size pixels: crops, resizes bilinearly without antialiasing, mirrors and mixes.

    Maps images (batch, height, width, channels), uint8, or float32 in [-1, 1], to (batch, size, size, channels) float32
    in [-1, 1]. Extents (batch, 2) are the height and width in pixels of each image in the top left corner of its
    canvas; None where the images fill it.
    """
    images = normalize(images)
    top, left, height, width = view.box.T
    sizes = jnp.asarray([images.shape[1:3]] if extents is None else extents, jnp.float32)
    rows = _bilinear(top, height, sizes[:, 0], images.shape[1], size)
    columns = _bilinear(left, width, sizes[:, 1], images.shape[2], size)
    columns = jnp.where(view.flip[:, None, None], columns[:, ::-1], columns)
    # accelerators would round to 8 or 11 bits
    rendered = jnp.einsum("brh,bhwc->brwc", rows, images, precision="highest")
    rendered = jnp.einsum("bqw,brwc->brqc", columns, rendered, precision="highest")
    return mix(rendered, view)


def mix(values: jax.Array, view: View) -> jax.Array:
    """Mixes (batch, ...) values, images or one-hot labels, each with the next: a roll sends one between devices."""
    if view.weight is None:
        return values
    weight = view.weight.reshape(-1, *[1] * (values.ndim - 1))
    values = jax.lax.optimization_barrier(values)  # or XLA mingles the roll with what made them, and gathers it all
    return weight * values + (1 - weight) * jnp.roll(values, -1, axis=0)


def normalize(images: jax.Array | np.ndarray) -> jax.Array:
    """Maps uint8 images to float32 in [-1, 1]; float images pass unchanged."""
    if images.dtype == jnp.uint8:
        return jnp.asarray(images, jnp.float32) / 127.5 - 1.0
    return jnp.asarray(images)


def aspect(images: jax.Array | np.ndarray, extents: jax.Array | np.ndarray | None = None) -> jax.Array:
    """Width / height of images (batch, height, width, channels): one number, or (batch,) where they have extents."""
    size = jnp.asarray(images.shape[1:3] if extents is None else extents)
    return size[..., 1] / size[..., 0]


class Images(NamedTuple):
    """Images that lie on the device; views are cropped from them in the step."""

    images: jax.Array | np.ndarray  #: (n, height, width, channels) uint8
    targets: jax.Array | np.ndarray | None = None  #: labels (n,), or a fixed teacher's outputs (n, classes)
    extents: jax.Array | np.ndarray | None = None  #: (n, 2), see `render`
    indices: jax.Array | np.ndarray | None = None  #: (batch,) which of them a step uses; None for all

    def batch(self) -> Images:
        """Those of this step."""
        if self.indices is None:
            return self
        return Images(*jax.tree.map(lambda whole: whole[self.indices], self[:3]))

    def aspect(self) -> jax.Array:
        """Width / height of the images, a number or (batch,)."""
        return aspect(self.images, self.extents)

    def show(self, view: View, size: int, *, teacher: bool) -> jax.Array:
        """What student or teacher see of a view at a size in pixels, (batch, size, size, channels) in [-1, 1]."""
        return render(self.images, view, size, self.extents)


class Crops(NamedTuple):
    """Crops of the host, made of the same views; what is left to do is mixup."""

    student: jax.Array | np.ndarray | None  #: (batch, size, size, channels) uint8; None where only teachers look
    teacher: Mapping[int, jax.Array | np.ndarray]  #: by size, where it is another
    targets: jax.Array | np.ndarray | None = None  #: labels (batch,), or a fixed teacher's outputs

    def batch(self) -> Crops:
        """Those of this step: all of them."""
        return self

    def aspect(self) -> jax.Array:
        """1: the host has seen to it."""
        return jnp.ones(())

    def show(self, view: View, size: int, *, teacher: bool) -> jax.Array:
        """As `Images.show`."""
        pixels = self.teacher[size] if teacher else self.student
        assert pixels is not None
        return mix(normalize(pixels), view)


Pixels = Images | Crops
"""The images of a batch before anybody looks at them."""


def _bilinear(start: jax.Array, extent: jax.Array, length: jax.Array, pixels: int, size: int) -> jax.Array:
    """Weights (batch, size, pixels) that resize a crop of an axis, which is in fractions of its length (batch,)."""
    start, extent = (start * length)[:, None], (extent * length)[:, None]
    centres = start + (jnp.arange(size)[None, :] + 0.5) * extent / size - 0.5
    centres = jnp.clip(centres, start, start + jnp.maximum(extent - 1.0, 0.0))
    centres = jnp.minimum(centres, length[:, None] - 1.0)  # a crop below one pixel may begin beyond the last middle
    distance = jnp.abs(centres[:, :, None] - jnp.arange(pixels)[None, None, :])
    return jnp.maximum(1.0 - distance, 0.0)

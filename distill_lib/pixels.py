"""What a view is rendered from: images on the device, or crops that the host made. Who looks does not know which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import views


class Images(NamedTuple):
    """Images that lie on the device; views are cropped from them in the step.

    Attributes:
        images: (n, height, width, channels) uint8.
        targets: labels (n,), or a fixed teacher's outputs (n, classes).
        extents: (n, 2) true height and width of each image in its canvas, in pixels; None where they fill it.
        indices: (batch,) which of them a step uses; None for all.
    """

    images: jax.Array | np.ndarray
    targets: jax.Array | np.ndarray | None = None
    extents: jax.Array | np.ndarray | None = None
    indices: jax.Array | np.ndarray | None = None

    def batch(self) -> Images:
        """Those of this step."""
        if self.indices is None:
            return self
        return Images(*jax.tree.map(lambda whole: whole[self.indices], self[:3]))

    def aspect(self) -> jax.Array:
        """Width / height of the images, a number or (batch,)."""
        return views.aspect(self.images, self.extents)

    def show(self, view: views.View, size: int, *, teacher: bool) -> jax.Array:
        """What student or teacher see of a view at a size in pixels, (batch, size, size, channels) in [-1, 1]."""
        return views.render(self.images, view, size, self.extents)


class Crops(NamedTuple):
    """Crops of the host, made of the same views; what is left to do is mixup.

    Attributes:
        student: (batch, size, size, channels) uint8; None where only teachers look.
        teacher: by size in pixels, where it is another or the teacher's crop is independent.
        targets: labels (batch,), or a fixed teacher's outputs (batch, classes).
    """

    student: jax.Array | np.ndarray | None
    teacher: Mapping[int, jax.Array | np.ndarray]
    targets: jax.Array | np.ndarray | None = None

    def batch(self) -> Crops:
        """Those of this step: all of them."""
        return self

    def aspect(self) -> jax.Array:
        """1: the host has seen to it."""
        return jnp.ones(())

    def show(self, view: views.View, size: int, *, teacher: bool) -> jax.Array:
        """As `Images.show`."""
        crops = self.teacher[size] if teacher else self.student
        assert crops is not None
        return views.mix(views.normalize(crops), view)


Pixels = Images | Crops
"""The images of a batch before anybody looks at them."""

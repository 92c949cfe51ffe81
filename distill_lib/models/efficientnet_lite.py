"""EfficientNet-Lite0: a small network with published ImageNet weights, the teacher of natural images.

EfficientNet-B0 made for phones: no squeeze-excite, and ReLU6 instead of swish.

References:
    Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019, table 1.
    Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, March 2020.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from distill_lib.models.mobile_layers import ConvNorm, Layers, Row, Stage, cast_kernels, fold_batch_norm

NAME = "efficientnet_lite0"
ACTIVATION = "relu6"
STEM = 32
LAST = 1280
STAGES = (
    # repeats, kernel, stride, expansion, out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def stages() -> list[tuple[Row, ...]]:
    """Spells out `STAGES` block by block: only the first block of a stage has its stride."""
    found, inputs = [], STEM
    for repeats, kernel_size, stride, expansion, features in STAGES:
        first = Row(kernel_size, inputs * expansion, features, False, ACTIVATION, stride)
        later = Row(kernel_size, features * expansion, features, False, ACTIVATION, 1)
        found.append((first, *[later] * (repeats - 1)))
        inputs = features
    return found


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0, from images to logits.

    Attributes:
        num_classes: length of the logits.
        dtype: of the activations.
        folded: whether BatchNorm is already in the convolutions, as in a frozen teacher.
    """

    num_classes: int
    dtype: str = "float32"
    folded: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), float32 in [-1, 1], to logits (batch, num_classes).

        `train` uses the statistics of the batch and updates the running ones.
        """
        layers = self._layers()
        x = ConvNorm(STEM, layers, 3, 2, ACTIVATION, name="stem")(images.astype(self.dtype), train)
        for number, rows in enumerate(stages(), 1):
            x = Stage(rows, layers, name=f"stage{number}")(x, train)
        x = ConvNorm(LAST, layers, activation=ACTIVATION, name="last")(x, train)
        features = x.mean(axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(features)

    def fold(self, variables: dict) -> tuple[EfficientNetLite, dict]:
        """Moves BatchNorm into the convolutions, whose kernels are kept in the dtype they are used in."""
        params = fold_batch_norm(variables, self._layers().epsilon)
        return self.clone(folded=True), {"params": cast_kernels(params, self.dtype)}

    def _layers(self) -> Layers:
        return Layers(epsilon=1e-3, momentum=0.99, same=True, folded=self.folded)


def create(name: str, num_classes: int, dtype: str = "float32") -> EfficientNetLite | None:
    """Builds the model of that name; None if it is not one of this family."""
    return EfficientNetLite(num_classes, dtype) if name == NAME else None


def names() -> list[str]:
    """Names that `create` knows."""
    return [NAME]

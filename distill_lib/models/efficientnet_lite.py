"""EfficientNet-Lite0: a small network with published ImageNet weights, the teacher of natural images.

EfficientNet-B0 made for phones: no squeeze-excite, and ReLU6 instead of swish.

References:
    Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019, table 1.
    Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, March 2020.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from distill_lib.models.mobile_layers import Layers, MobileNet, Row

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


def stages() -> tuple[tuple[Row, ...], ...]:
    """Spells out `STAGES` block by block: only the first block of a stage has its stride."""
    spelled_out, inputs = [], STEM
    for repeats, kernel_size, stride, expansion, features in STAGES:
        first = Row(kernel_size, inputs * expansion, features, False, ACTIVATION, stride)
        later = Row(kernel_size, features * expansion, features, False, ACTIVATION, 1)
        spelled_out.append((first, *[later] * (repeats - 1)))
        inputs = features
    return tuple(spelled_out)


def builders() -> Mapping[str, Callable[..., MobileNet]]:
    """What builds the model of this family, by name."""
    layers = Layers(epsilon=1e-3, momentum=0.99, same=True)
    build = functools.partial(MobileNet, stem=STEM, stages=stages(), last=LAST, activation=ACTIVATION, layers=layers)
    return {NAME: build}

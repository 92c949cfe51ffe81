"""The mobile networks: MobileNet v3, Large and Small, the paper's second student, and EfficientNet-Lite0, a teacher.

MobileNet is there with GroupNorm (`_gn`), as the paper's, and with BatchNorm (`_bn`), as published: Howard et al., ICCV
2019, section 5 and tables 1 and 2. Lite0 is Tan and Le, ICML 2019, table 1, without squeeze-excite and with ReLU6
(Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, March 2020).
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from distill_lib.models.mobile_layers import Layers, MobileNet, Row

RE, HS = "relu", "hard_swish"


class Size(NamedTuple):
    """A published network: its blocks, channels of the last convolution, width of the hidden layer after pooling."""

    rows: tuple[Row, ...]
    last: int
    hidden: int


LARGE = Size(  # table 1
    rows=(
        # kernel, exp size, out, SE, NL, s
        Row(3, 16, 16, False, RE, 1),
        Row(3, 64, 24, False, RE, 2),
        Row(3, 72, 24, False, RE, 1),
        Row(5, 72, 40, True, RE, 2),
        Row(5, 120, 40, True, RE, 1),
        Row(5, 120, 40, True, RE, 1),
        Row(3, 240, 80, False, HS, 2),
        Row(3, 200, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
        Row(3, 480, 112, True, HS, 1),
        Row(3, 672, 112, True, HS, 1),
        Row(5, 672, 160, True, HS, 2),
        Row(5, 960, 160, True, HS, 1),
        Row(5, 960, 160, True, HS, 1),
    ),
    last=960,
    hidden=1280,
)
SMALL = Size(  # table 2; without the squeeze-excite after the last convolution, which the published weights do not have
    rows=(
        # kernel, exp size, out, SE, NL, s
        Row(3, 16, 16, True, RE, 2),
        Row(3, 72, 24, False, RE, 2),
        Row(3, 88, 24, False, RE, 1),
        Row(5, 96, 40, True, HS, 2),
        Row(5, 240, 40, True, HS, 1),
        Row(5, 240, 40, True, HS, 1),
        Row(5, 120, 48, True, HS, 1),
        Row(5, 144, 48, True, HS, 1),
        Row(5, 288, 96, True, HS, 2),
        Row(5, 576, 96, True, HS, 1),
        Row(5, 576, 96, True, HS, 1),
    ),
    last=576,
    hidden=1024,
)
SIZES = {"large": LARGE, "small": SMALL}
LITE_STEM, LITE_LAST = 32, 1280
LITE_STAGES = (
    # repeats, kernel, stride, expansion, out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def builders() -> Mapping[str, Callable[..., MobileNet]]:
    """What builds each model of this family, by name: `mobilenet_v3_{large,small}_{gn,bn}`, `efficientnet_lite0`."""
    v3 = {
        f"mobilenet_v3_{name}_{norm}": functools.partial(build, size, norm)
        for name, size in SIZES.items()
        for norm in ("gn", "bn")
    }
    layers, stages = Layers(epsilon=1e-3, momentum=0.99, same=True), lite_stages()
    sized = functools.partial(MobileNet, stem=LITE_STEM, stages=stages, last=LITE_LAST)
    return v3 | {"efficientnet_lite0": functools.partial(sized, activation="relu6", layers=layers)}


def build(size: Size, norm: str, num_classes: int, dtype: str = "float32") -> MobileNet:
    """Builds a network; neighbouring blocks with equally many output channels are one stage."""
    stages = tuple(tuple(rows) for _, rows in itertools.groupby(size.rows, key=lambda row: row.features))
    return MobileNet(num_classes, 16, stages, size.last, size.hidden, HS, Layers(norm=norm), dtype)


def lite_stages() -> tuple[tuple[Row, ...], ...]:
    """Spells out `LITE_STAGES` block by block: only the first block of a stage has its stride."""
    spelled_out, inputs = [], LITE_STEM
    for repeats, kernel_size, stride, expansion, features in LITE_STAGES:
        first = Row(kernel_size, inputs * expansion, features, False, "relu6", stride)
        later = Row(kernel_size, features * expansion, features, False, "relu6", 1)
        spelled_out.append((first, *[later] * (repeats - 1)))
        inputs = features
    return tuple(spelled_out)

"""MobileNet v3, Large and Small: the student that the paper trains beside ResNet-50.

With GroupNorm (`_gn`), which needs no statistics of the batch, as the paper's student has it; and with BatchNorm
(`_bn`), as it was published.

References:
    Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5 and tables 1 and 2.
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022 (its MobileNet student).
"""

from __future__ import annotations

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


def builders() -> Mapping[str, Callable[..., MobileNet]]:
    """What builds each model of this family, by name: `mobilenet_v3_{large,small}_{gn,bn}`."""
    return {
        f"mobilenet_v3_{name}_{norm}": functools.partial(build, size, norm)
        for name, size in SIZES.items()
        for norm in ("gn", "bn")
    }


def build(size: Size, norm: str, num_classes: int, dtype: str = "float32") -> MobileNet:
    """Builds a network; neighbouring blocks with equally many output channels are one stage."""
    stages = tuple(tuple(rows) for _, rows in itertools.groupby(size.rows, key=lambda row: row.features))
    return MobileNet(num_classes, 16, stages, size.last, size.hidden, HS, Layers(norm=norm), dtype)

"""The mobile networks: MobileNet v3, Large and Small, the paper's second student, and EfficientNet-Lite0, a teacher.

MobileNet is there with GroupNorm (`_gn`), as the paper's, and with BatchNorm (`_bn`), as published: Howard et al., ICCV
2019, section 5 and tables 1 and 2; Small without the squeeze-excite after the last convolution, which the published
weights do not have. Lite0 is Tan and Le, ICML 2019, table 1, without squeeze-excite and with ReLU6 (Liu, "Higher
accuracy on vision models with EfficientNet-Lite", TensorFlow blog, March 2020). See `data/mobilenets.csv`.
"""

import csv
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from distill_lib.models.mobile_layers import Layers, MobileNet, Row

FILE = Path(__file__).parents[1] / "data" / "mobilenets.csv"
WIDTHS = {"large": (960, 1280), "small": (576, 1024)}  # of the last convolution, and of the hidden layer after pooling
LITE, LITE_LAST = "lite0", 1280
ROWS: dict[str, list[Row]] = {}
for _name, *_numbers, _activation, _stride in [*csv.reader(FILE.read_text(encoding="utf-8").splitlines())][1:]:
    _kernel, _expanded, _features, _squeeze = map(int, _numbers)
    ROWS.setdefault(_name, []).append(Row(_kernel, _expanded, _features, bool(_squeeze), _activation, int(_stride)))


def builders() -> Mapping[str, Callable[..., MobileNet]]:
    """What builds each model of this family, by name: `mobilenet_v3_{large,small}_{gn,bn}`, `efficientnet_lite0`."""
    v3 = functools.partial(MobileNet, stem=16, activation="hard_swish")
    built = {
        f"mobilenet_v3_{name}_{norm}": functools.partial(
            v3, stages=stages(name), last=last, hidden=hidden, layers=Layers(norm=norm)
        )
        for name, (last, hidden) in WIDTHS.items()
        for norm in ("gn", "bn")
    }
    lite = functools.partial(MobileNet, stem=32, stages=stages(LITE), last=LITE_LAST, activation="relu6")
    layers = Layers(epsilon=1e-3, momentum=0.99, same=True)
    return built | {"efficientnet_lite0": functools.partial(lite, layers=layers)}


def stages(network: str) -> tuple[tuple[Row, ...], ...]:
    """The blocks of a network; neighbouring ones with equally many output channels are one stage."""
    return tuple(tuple(stage) for _, stage in itertools.groupby(ROWS[network], key=lambda row: row.features))

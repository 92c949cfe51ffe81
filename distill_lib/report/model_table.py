"""The book's table of models: what they are, what they cost, and how far they are from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from distill_lib import models, records
from distill_lib.models import flops

_LARGE = (
    "bit_r26x1", "bit_r50x1", "bit_r101x1", "bit_r152x2",
    "mobilenet_v3_large_gn", "mobilenet_v3_large_bn", "mobilenet_v3_small_gn", "mobilenet_v3_small_bn",
    "vit_ti16", "vit_s16", "vit_b16", "efficientnet_lite0",
)  # fmt: skip
SHOWN = (  # name, side of the images in pixels, channels, classes
    *((name, 224, 3, 1000) for name in _LARGE),
    ("bit_r11w24", 28, 1, 10),
    ("bit_r11w8", 28, 1, 10),
)
FAMILIES = {"bit": "BiT", "mobilenet": "MobileNet v3", "vit": "ViT", "efficientnet": "EfficientNet"}


def table(shown: Sequence[tuple[str, int, int, int]] = SHOWN, results: Path | None = None) -> pd.DataFrame:
    """Builds the table; sizes and costs are counted from the code, differences read from results/models/parity.csv.

    `python tests/parity.py` writes that record; without it the column is empty.

    Args:
        shown: (name, side in pixels, channels, classes) of each model.
        results: the results folder; None finds it.

    Returns:
        A row a model.
    """
    path, largest = (results or records.find_results()) / "models" / "parity.csv", {}
    if path.is_file():
        largest = pd.read_csv(path).groupby("model")[["logits", "features"]].max().max(axis=1).to_dict()
    rows = []
    for name, side, channels, classes in shown:
        model, shape = models.create(name, classes), (side, side, channels)
        giga = flops.macs(model, shape) / 1e9
        row = {"model": name, "parameters (M)": f"{flops.parameters(model, shape) / 1e6:.2f}"}
        row |= {"GMAC": f"{giga:.2f}" if giga > 0.01 else f"{giga:.1g}", "input (px)": str(side)}
        row |= {"family": FAMILIES[name.split("_")[0]]}
        rows.append(row | {"difference from timm": f"{largest[name]:.0e}" if name in largest else ""})
    return pd.DataFrame(rows)

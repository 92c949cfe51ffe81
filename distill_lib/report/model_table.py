"""The book's table of models: what they are, what they cost, and how far they are from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from distill_lib import models, records
from distill_lib.models import flops
from distill_lib.teachers import published

SHOWN = (  # name, side of the images in pixels, colours, classes
    ("bit_r26x1", 224, 3, 1000),
    ("bit_r50x1", 224, 3, 1000),
    ("bit_r101x1", 224, 3, 1000),
    ("bit_r152x2", 224, 3, 1000),
    ("mobilenet_v3_large_gn", 224, 3, 1000),
    ("mobilenet_v3_large_bn", 224, 3, 1000),
    ("mobilenet_v3_small_gn", 224, 3, 1000),
    ("mobilenet_v3_small_bn", 224, 3, 1000),
    ("vit_ti16", 224, 3, 1000),
    ("vit_s16", 224, 3, 1000),
    ("vit_b16", 224, 3, 1000),
    ("efficientnet_lite0", 224, 3, 1000),
    ("bit_r11w24", 28, 1, 10),
    ("bit_r11w8", 28, 1, 10),
)
SOURCES = {
    "bit": "BiT",
    "mobilenet": "MobileNet v3",
    "vit": "ViT",
    "efficientnet": "EfficientNet",
}


def table(shown: Sequence[tuple[str, int, int, int]] = SHOWN, results: Path | None = None) -> pd.DataFrame:
    """Builds the table; sizes and costs are counted from the code, differences read from results/models/parity.csv.

    `python tests/parity.py` writes that record; without it the column is empty.

    Args:
        shown: (name, side in pixels, colours, classes) of each model.
        results: the results folder; None finds it.

    Returns:
        A row a model.
    """
    differences = _differences(results or records.find_results())
    return pd.DataFrame(_row(*model, differences) for model in shown)


def _row(name: str, side: int, colours: int, num_classes: int, differences: dict[str, float]) -> dict:
    model = models.create(name, num_classes)
    files = [checkpoint.name for checkpoint in published.CHECKPOINTS.values() if checkpoint.model == name]
    return {
        "model": name,
        "parameters (M)": f"{flops.parameters(model, (side, side, colours)) / 1e6:.2f}",
        "GMAC": _rounded(flops.macs(model, (side, side, colours)) / 1e9),
        "input (px)": side,
        "family": SOURCES[name.split("_")[0]],
        "difference from timm": f"{differences[name]:.0e}" if name in differences else "",
        "published files": len(files) or "",
    }


def _rounded(number: float) -> str:
    return f"{number:.2f}" if number > 0.01 else f"{number:.1g}"


def _differences(results: Path) -> dict[str, float]:
    """The largest relative difference of logits or features over all sizes, by model."""
    path = results / "models" / "parity.csv"
    if not path.is_file():
        return {}
    frame = pd.read_csv(path)
    frame["largest"] = frame[["logits", "features"]].max(axis=1)
    return {str(name): float(rows["largest"].max()) for name, rows in frame.groupby("model")}

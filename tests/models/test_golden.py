"""Every network of the book against timm's, on the same weights: logits and feature maps.

The golden files hold timm's outputs only. Weights and images are drawn from the seed that the files name.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import parity
import pytest

from distill_lib import models, records

TOLERANCE = 1e-3  # of the largest number of an array
SMALL = {path.stem.rpartition("_")[0]: path for path in reversed(parity.FILES)}.values()
"""Of each network the smallest images; the record has the others too."""


@pytest.mark.slow
@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_logits_and_features_equal_those_of_timm(path: Path) -> None:
    """The same weights give the same numbers as an implementation that others trust."""
    found = parity.errors(path)
    assert len(found) > 4 and max(found.values()) < TOLERANCE, found
    assert float(np.std(parity.load(path)["logits"])) > 0.1, "weights so small that a difference would not show"


def test_every_family_is_compared_and_recorded() -> None:
    """The book's table of models quotes the record, which has a row for each golden file and no other."""
    with open(records.find_results() / "models" / "parity.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['model']}_{row['side']}" for row in rows] == [path.stem for path in parity.FILES]
    assert all(float(row[kind]) < TOLERANCE for row in rows for kind in ("logits", "features"))
    compared = {row["model"] for row in rows}
    wanted = {"bit_r50x1", "bit_r152x2", "mobilenet_v3_large_bn", "mobilenet_v3_small_bn", "efficientnet_lite0"}
    assert wanted | {"vit_ti16", "vit_s16", "vit_b16"} <= compared <= set(models.names())


def test_golden_files_are_small() -> None:
    """Under 5 MB all together, so that they can be committed."""
    assert sum(path.stat().st_size for path in parity.FILES) < 5e6

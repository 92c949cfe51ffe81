"""Every network of the book against timm's, on the same weights: logits and feature maps.

The golden files hold timm's outputs only. Weights and images are drawn here from the seed that the files name.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import seeded

from distill_lib import models

FILES = sorted((Path(__file__).parent / "golden").glob("*.npz"))
TOLERANCE = 1e-3  # of the largest number of an array


@functools.lru_cache(maxsize=1)
def network(name: str, num_classes: int, side: int, seed: int) -> tuple:
    """A model and its drawn variables; two files of one model share them."""
    model = models.create(name, num_classes)
    return model, seeded.variables(models.shapes(model, (side, side, 3)), seed)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected number."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_logits_and_features_equal_those_of_timm(path: Path) -> None:
    """The same weights give the same numbers as an implementation that others trust."""
    with np.load(path, allow_pickle=False) as file:
        golden = {name: file[name] for name in file.files}
    name, _, side = path.stem.rpartition("_")
    images = seeded.images(int(golden["seed"]), int(golden["batch"]), int(side))
    model, variables = network(name, int(golden["num_classes"]), int(side), int(golden["seed"]))

    features = models.features(model, variables, images)
    wanted = {key.removeprefix("feature/"): value for key, value in golden.items() if key.startswith("feature/")}
    assert wanted and wanted.keys() <= features.keys()
    errors = {part: difference(seeded.sample(features[part]), value) for part, value in wanted.items()}
    errors["logits"] = difference(features["logits"], golden["logits"])
    assert max(errors.values()) < TOLERANCE, errors
    assert float(np.std(golden["logits"])) > 0.1, "weights so small that a difference would not show"

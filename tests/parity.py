"""How far every network is from timm's, measured on the golden files; run as a program it writes the record.

    python tests/parity.py

Not a test itself.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import seeded

from distill_lib import models, records, weights

FILES = sorted((Path(__file__).parent / "golden").glob("*.npz"))
COLUMNS = ("model", "side", "reference", "logits", "features", "timm", "torch")


@functools.lru_cache(maxsize=1)
def drawn(seed: int, shapes: tuple) -> dict:
    """Variables of these names and shapes; the files of one model share them unless the side of its images counts."""
    return seeded.variables(weights.unflatten(dict(shapes)), seed)


def load(path: Path) -> dict[str, np.ndarray]:
    """Content of a golden file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def features(model: nn.Module, variables: models.Variables, images: jax.Array) -> dict[str, jax.Array]:
    """Outputs of the parts of a model and of their parts, such as "block1" and "block1/unit01", and last "logits"."""

    def near(module: nn.Module, _: str) -> bool:
        return 1 <= len(module.path) <= 2

    output, captured = model.apply(variables, images, capture_intermediates=near, mutable=["intermediates"])
    outputs = weights.flatten(captured["intermediates"])
    return {path.removesuffix("/__call__"): value for path, (value,) in outputs.items()} | {"logits": output}


def errors(path: Path) -> dict[str, float]:
    """Largest difference of the logits and of each feature map, relative to the largest number of timm's."""
    golden = load(path)
    name, _, side = path.stem.rpartition("_")
    seed = int(golden["seed"])
    images = seeded.images(seed, int(golden["batch"]), int(side))
    model = models.create(name, int(golden["num_classes"]))
    shapes = weights.flatten(models.shapes(model, images.shape[1:]))
    variables = drawn(seed, tuple((path, leaf.shape) for path, leaf in shapes.items()))
    found = jax.jit(features, static_argnums=0)(model, variables, images)
    wanted = {key.removeprefix("feature/"): value for key, value in golden.items() if key.startswith("feature/")}
    differences = {part: difference(seeded.sample(found[part]), value) for part, value in wanted.items()}
    return differences | {"logits": difference(np.asarray(found["logits"]), golden["logits"])}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main() -> None:
    """Writes results/models/parity.csv."""
    rows = [COLUMNS]
    for path in FILES:
        name, _, side = path.stem.rpartition("_")
        golden, found = load(path), errors(path)
        versions = json.loads(str(golden["versions"]))
        logits = found.pop("logits")
        numbers = (f"{logits:.2g}", f"{max(found.values()):.2g}")
        rows.append((name, side, str(golden["reference"]), *numbers, versions["timm"], versions["torch"]))
        print(*rows[-1], flush=True)
    content = "".join(",".join(row) + "\n" for row in rows)
    weights.write_atomically(records.find_results() / "models" / "parity.csv", content.encode())


if __name__ == "__main__":
    main()

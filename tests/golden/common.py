"""What the scripts of this folder share: seeds, the writing of a golden file, and feature maps of a PyTorch model."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

SEED = 20_210_609  # the day the paper was first submitted
BATCH = 2
NUM_CLASSES = 1000


def write(name: str, side: int, *, reference: str, logits: Any, features: dict[str, Any]) -> None:
    """Writes tests/golden/<name>_<side>.npz: logits whole, and a few numbers of each feature map.

    Args:
        name: our name of the model.
        side: height and width of the images in pixels.
        reference: timm's name of it.
        logits: (BATCH, NUM_CLASSES).
        features: arrays in our layout (channels last) by the names that `parity.features` gives.
    """
    import seeded

    packages = ("torch", "timm", "numpy", "jax")
    content = {f"feature/{key}": seeded.sample(value) for key, value in features.items()}
    np.savez_compressed(
        HERE / f"{name}_{side}.npz",
        logits=np.asarray(logits, np.float32),
        reference=np.array(reference),
        versions=np.array(json.dumps({package: version(package) for package in packages})),
        seed=np.int64(SEED),
        batch=np.int64(BATCH),
        num_classes=np.int64(NUM_CLASSES),
        **content,
    )
    print(f"{name} {side}: logits up to {np.abs(logits).max():.3g}, {len(features)} features", flush=True)


def outputs(model: Any, images: np.ndarray, parts: dict[str, str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Runs a PyTorch model in inference mode.

    Args:
        model: the module.
        images: (batch, height, width, colours) float32.
        parts: name in the result -> name of the submodule whose output is wanted.

    Returns:
        Logits (batch, classes), and feature maps with channels last.
    """
    import torch

    found: dict[str, np.ndarray] = {}
    for name, path in parts.items():
        model.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, name=name: found.__setitem__(name, output.numpy().copy())
        )
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    return logits, {name: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value for name, value in found.items()}

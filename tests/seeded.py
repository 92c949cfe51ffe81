"""Variables and images out of a seed, by NumPy alone, so that golden files need not hold them; not a test itself."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from distill_lib import weights

SAMPLES = 512


def variables(shapes: dict, seed: int) -> dict:
    """Draws numbers for a tree of arrays or shapes; each array depends on the seed and its own name alone.

    Sizes are those of a trained network: no layer fades or explodes, and nothing is so small that it would not show.
    """
    flat = {path: tuple(getattr(leaf, "shape", leaf)) for path, leaf in weights.flatten(shapes).items()}
    return weights.unflatten({path: _draw(path, shape, seed) for path, shape in flat.items()})


def _draw(path: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    numbers = np.random.default_rng([seed, zlib.crc32(path.encode())])
    kind = path.rpartition("/")[2]
    if kind in ("scale", "var"):
        return numbers.uniform(0.5, 1.5, shape).astype(np.float32)
    drawn = numbers.standard_normal(shape, np.float32)
    if kind == "kernel":
        to_heads = any(part in path for part in ("/query/", "/key/", "/value/"))  # (inputs, heads, width of a head)
        fan_in = shape[0] if to_heads else np.prod(shape[:-1])
        return drawn * np.float32(np.sqrt(2 / fan_in))
    return drawn * np.float32(0.2 if kind in ("bias", "mean") else 0.5)


def images(seed: int, batch: int, side: int, channels: int = 3) -> np.ndarray:
    """Noise in [-1, 1], float32 (batch, side, side, channels)."""
    return np.random.default_rng([seed, side]).uniform(-1, 1, (batch, side, side, channels)).astype(np.float32)


def sample(array: Any, count: int = SAMPLES) -> np.ndarray:
    """The same few numbers of an array, wherever they are needed, float32."""
    flat = np.asarray(array, np.float32).reshape(-1)
    positions = np.random.default_rng(len(flat)).integers(len(flat), size=count)
    return flat[positions]

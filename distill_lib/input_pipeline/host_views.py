"""The views of `views.sample` for single positions of a batch, by NumPy: for crops where images are decoded.

The random numbers are JAX's own, bit for bit: Threefry-2x32 (Salmon et al., SC 2011) in its partitionable form.
"""

from typing import NamedTuple

import numpy as np

from distill_lib import crops

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


class Boxes(NamedTuple):
    """Crops of some images: box float32 (n, 4) as fractions of the image, flip bool (n,)."""

    box: np.ndarray
    flip: np.ndarray


def step_key(seed: int, step: int) -> np.ndarray:
    """The key of a training step, uint32 (2,), as `step.view_key` and the training step make it."""
    return fold_in(fold_in(key(seed), 1), step)


def key(seed: int) -> np.ndarray:
    """`jax.random.key(seed)` as uint32 (2,): JAX keeps the lower 32 bits of a seed unless it is told to use 64."""
    return np.array([0, seed & 0xFFFFFFFF], np.uint32)


def fold_in(key: np.ndarray, data: int | np.ndarray) -> np.ndarray:
    """`jax.random.fold_in`, for one number or for (n,) numbers: uint32 (2,) or (n, 2)."""
    low = np.asarray(data).astype(np.uint32)
    return np.stack(_threefry(key, np.zeros_like(low), low), axis=-1)


def uniform(keys: np.ndarray, count: int) -> np.ndarray:
    """`jax.random.uniform(key, (count,))` for keys uint32 (n, 2): float32 (n, count) in [0, 1)."""
    places = np.broadcast_to(np.arange(count, dtype=np.uint32), (len(keys), count))
    high, low = _threefry(keys[:, None, :], np.zeros_like(places), places)
    mantissa: np.ndarray = (high ^ low) >> np.uint32(9)
    return (mantissa | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def sample(
    key: np.ndarray,
    positions: np.ndarray,
    image_aspect: np.ndarray,
    *,
    crop: str = "inception",
    flip: bool = True,
    independent: bool = False,
    area: crops.Range = (0.05, 1.0),
    aspect: crops.Range = (3 / 4, 4 / 3),
    whole: float = 0.0,
) -> Boxes:
    """Draws what `views.sample` draws for these positions (n,) of the global batch, under a step's key uint32 (2,).

    `image_aspect` is width / height of the upright images, (n,); `independent` gives the second draw of an independent
    policy, the teacher's. Boxes are equal to 2**-22 of the image, since XLA fuses multiplications and additions.
    """
    numbers = uniform(fold_in(fold_in(key, crops.NO_POSITION) if independent else key, positions), crops.DRAWS)
    box = crops.draw(np, numbers[:, 3:], crop, area, aspect, np.asarray(image_aspect, np.float32))
    if whole:
        box = np.where(numbers[:, :1] < np.float32(whole), crops.centred(np, len(box), 1.0), box)
    return Boxes(box, numbers[:, 1] < 0.5 if flip else np.zeros(len(box), bool))


def _threefry(key: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds of counters uint32 (...), under keys uint32 (..., 2) that broadcast to them."""
    keys = [key[..., 0], key[..., 1]]
    keys.append(keys[0] ^ keys[1] ^ np.uint32(_PARITY))
    with np.errstate(over="ignore"):  # sums are modulo 2**32, of which NumPy warns where they are single numbers
        first, second = high + keys[0], low + keys[1]
        for block in range(5):
            for rotation in _ROTATIONS[block % 2]:
                first = first + second
                second = (second << np.uint32(rotation)) | (second >> np.uint32(32 - rotation))
                second = second ^ first
            first = first + keys[(block + 1) % 3]
            second = second + keys[(block + 2) % 3] + np.uint32(block + 1)
    return first, second

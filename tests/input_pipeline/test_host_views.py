"""Views drawn on the host are those that the jitted step draws."""

from __future__ import annotations

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_lib import crops, views
from distill_lib.datasets import decode
from distill_lib.input_pipeline import host_views
from distill_lib.train import step

BATCH = 64
SEEDS = st.integers(0, 2**32 - 1) | st.integers(0, 2**63 - 1)
STEPS = st.integers(0, 2**31 - 1)
POSITIONS = st.lists(st.integers(0, BATCH - 1), min_size=1, max_size=5)


@jax.jit
def numbers_of_jax(key: jax.Array) -> jax.Array:
    """The random numbers of `views.sample`."""
    draw = jax.vmap(lambda position: jax.random.uniform(jax.random.fold_in(key, position), (crops.DRAWS,)))
    return draw(jnp.arange(BATCH))


@functools.partial(jax.jit, static_argnames=("policy", "area", "whole"))
def pair(key: jax.Array, step: jax.Array, policy: str, ratio: jax.Array, **options) -> tuple[views.View, views.View]:
    """The two views of a training step."""
    return views.pair(jax.random.fold_in(key, step), views.policy(policy), BATCH, image_aspect=ratio, **options)


def test_jax_draws_partitionable_numbers() -> None:
    """The form of Threefry that is rebuilt here is the one that JAX uses unless it is told otherwise."""
    assert jax.config.jax_threefry_partitionable
    assert jax.config.jax_default_prng_impl == "threefry2x32"


@given(SEEDS, STEPS, POSITIONS)
@settings(max_examples=60)
def test_the_numbers_are_those_of_jax_bit_for_bit(seed: int, at: int, positions: list[int]) -> None:
    """For any seed, step and choice of positions."""
    theirs = jax.random.fold_in(step.view_key(seed), at)
    ours = host_views.step_key(seed, at)
    np.testing.assert_array_equal(ours, jax.random.key_data(theirs))
    keys = host_views.fold_in(ours, np.array(positions))
    found = host_views.uniform(keys, crops.DRAWS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(numbers_of_jax(theirs))[positions])


@pytest.mark.parametrize("policy", ["ind/ic", "same/ic", "ind/rc", "same/rc", "fix/rs", "fix/cc", "mix"])
@pytest.mark.parametrize(("area", "whole"), [((0.05, 1.0), 0.0), ((0.4, 0.7), 0.3)])
def test_boxes_and_flips_are_those_of_the_training_step(policy: str, area: tuple[float, float], whole: float) -> None:
    """Teacher's and student's, for images of many shapes, in any order of the positions."""
    numbers = np.random.default_rng(0)
    ratio = np.exp(numbers.uniform(-1, 1, BATCH)).astype(np.float32)
    row = views.policy(policy)
    for seed, at in ((0, 0), (7, 3), (2**31, 10**6)):
        wanted = pair(step.view_key(seed), jnp.int32(at), policy, ratio, area=area, whole=whole)
        order = numbers.permutation(BATCH)[:40]
        draws = [(row.student, False, wanted[1])]
        if row.relation == "independent":
            draws.append((row.teacher, True, wanted[0]))
        for kind, independent, view in draws:
            options = {"crop": kind, "flip": row.flip, "independent": independent, "area": area, "whole": whole}
            found = host_views.sample(host_views.step_key(seed, at), order, ratio[order], **options)
            assert found.box.dtype == np.float32
            np.testing.assert_allclose(found.box, np.asarray(view.box)[order], rtol=0, atol=2**-22)
            np.testing.assert_array_equal(found.flip, np.asarray(view.flip)[order])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(7, 160), (160, 7), (6, 240), (240, 6), (1, 99)])
@pytest.mark.parametrize("kind", ["inception", "mild"])
def test_crops_of_very_oblong_images_are_the_same_on_host_and_device(shape: tuple[int, int], kind: str) -> None:
    """Beyond 20:1, in a canvas or not: where no crop of a twentieth of the area fits, the whole image is shown."""
    height, width = shape
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    canvas = np.full((1, 240, 240, 3), 255, np.uint8)
    canvas[0, :height, :width] = pixels
    ratio = np.full(BATCH, width / height, np.float32)
    view = views.sample(jax.random.fold_in(step.view_key(0), 5), BATCH, crop=kind, image_aspect=ratio)
    found = host_views.sample(host_views.step_key(0, 5), np.arange(BATCH), ratio, crop=kind)
    np.testing.assert_allclose(found.box, view.box, rtol=0, atol=2**-22)
    top, left, high, wide = found.box.astype(np.float64).T
    assert (top >= 0).all() and (left >= 0).all() and (top + high <= 1 + 1e-6).all() and (left + wide <= 1 + 1e-6).all()
    if kind == "inception":
        whole, in_pixels = (high == 1) & (wide == 1), wide * width / (high * height)
        assert whole.all() == (max(ratio[0], 1 / ratio[0]) > 4 / 3 / 0.05)
        assert (in_pixels[~whole] > 0.749).all() and (in_pixels[~whole] < 1.334).all()
    looks = [decode.Look(box, bool(flip), 9) for box, flip in zip(found.box[:8], found.flip, strict=False)]
    shown = np.stack(decode.crops(pixels, looks))
    some = jax.tree.map(lambda leaf: leaf[:8], view)
    for images, extents in ((pixels[None], None), (canvas, jnp.array([[height, width]]))):
        images = jnp.broadcast_to(images, (8, *images.shape[1:]))
        extents = None if extents is None else jnp.broadcast_to(extents, (8, 2))
        rendered = (np.asarray(views.render(images, some, 9, extents)) + 1) * 127.5
        assert np.abs(shown - rendered).max() <= 0.51, "grey levels: a crop is rounded to the nearest"


def test_workers_need_no_jax() -> None:
    """What a worker process imports of this library stays light."""
    script = (
        "import sys; from distill_lib.datasets import decode; from distill_lib.input_pipeline import host_views; "
        "print('jax' in sys.modules, 'PIL' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert found.stdout.split() == ["False", "False"]

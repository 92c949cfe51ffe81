"""The order of the examples is a function of (seed, step) alone."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_lib.errors import DistillError
from distill_lib.input_pipeline import sampler

SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(1, 60).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))  # data, batch


@given(SEEDS, st.integers(0, 1_000_000), st.integers(1, 300))
@settings(deadline=None)
def test_an_epoch_visits_every_example_once(seed: int, epoch: int, num_examples: int) -> None:
    order = sampler.epoch_order(seed, epoch, num_examples)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(num_examples))


@given(SEEDS, SIZES)
@settings(deadline=None)
def test_the_stream_is_epoch_after_epoch(seed: int, sizes: tuple[int, int]) -> None:
    num_examples, batch_size = sizes
    steps = 3 * num_examples // batch_size
    stream = np.concatenate([sampler.batch_indices(seed, step, batch_size, num_examples) for step in range(steps)])
    expected = np.concatenate([sampler.epoch_order(seed, epoch, num_examples) for epoch in range(3)])
    np.testing.assert_array_equal(stream, expected[: len(stream)])


@given(SEEDS, SIZES, st.integers(0, 500))
@settings(deadline=None)
def test_starting_later_equals_skipping(seed: int, sizes: tuple[int, int], start_step: int) -> None:
    num_examples, batch_size = sizes
    whole = sampler.batches(num_examples, seed=seed, batch_size=batch_size)
    resumed = sampler.batches(num_examples, seed=seed, batch_size=batch_size, start_step=start_step)
    for skipped, batch in itertools.islice(zip(itertools.islice(whole, start_step, None), resumed, strict=False), 3):
        np.testing.assert_array_equal(skipped, batch)


@given(SEEDS, SIZES, st.lists(st.integers(0, 10_000), min_size=1, max_size=5))
@settings(deadline=None)
def test_a_step_does_not_depend_on_what_ran_before(seed: int, sizes: tuple[int, int], steps: list[int]) -> None:
    num_examples, batch_size = sizes
    first = [sampler.batch_indices(seed, step, batch_size, num_examples) for step in steps]
    sampler.epoch_order.cache_clear()
    for step, batch in reversed(list(zip(steps, first, strict=True))):
        assert batch.shape == (batch_size,) and batch.dtype == np.int32
        np.testing.assert_array_equal(sampler.batch_indices(seed, step, batch_size, num_examples), batch)


def test_seeds_and_epochs_give_orders_of_their_own() -> None:
    orders = {tuple(sampler.epoch_order(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_place_in_an_epoch_is_equally_likely() -> None:
    mean_place = np.mean([np.argsort(sampler.epoch_order(0, epoch, 20)) for epoch in range(4_000)], axis=0)
    standard_error = np.sqrt((20**2 - 1) / 12 / 4_000)
    np.testing.assert_allclose(mean_place, 9.5, atol=4.5 * standard_error)


def test_the_order_is_the_same_for_ever() -> None:
    """Records of old runs can be repeated only as long as these numbers hold."""
    np.testing.assert_array_equal(sampler.epoch_order(0, 0, 10), [0, 2, 9, 1, 8, 5, 4, 3, 6, 7])
    np.testing.assert_array_equal(sampler.epoch_order(7, 3, 10), [2, 5, 9, 7, 3, 0, 6, 8, 4, 1])


def test_the_order_does_not_depend_on_the_number_of_devices() -> None:
    images = np.arange(24, dtype=np.float32)
    indices = sampler.batch_indices(3, 5, 8, 24)
    for count in range(1, len(jax.devices()) + 1):
        if 8 % count:
            continue
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("batch",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        batch = jax.device_put(images[indices], sharding)
        in_order = sorted(batch.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        seen = np.concatenate([np.asarray(shard.data) for shard in in_order])
        np.testing.assert_array_equal(seen, images[indices])


def test_orders_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        sampler.epoch_order(0, 0, 5)[0] = 1


def test_a_batch_of_the_whole_data_is_an_epoch() -> None:
    np.testing.assert_array_equal(sampler.batch_indices(1, 4, 9, 9), sampler.epoch_order(1, 4, 9))


@pytest.mark.parametrize(
    ("seed", "step", "batch_size", "message"),
    [
        (0, 0, 11, "a batch of 11 cannot be taken from 10 examples: choose batch_size from 1 to 10"),
        (0, 0, 0, "choose batch_size from 1 to 10"),
        (0, -1, 5, "step -1 is negative"),
        (-1, 0, 5, "seed -1 is out of range"),
        (2**64, 0, 5, "out of range"),
    ],
)
def test_bad_input_is_told_at_once(seed: int, step: int, batch_size: int, message: str) -> None:
    with pytest.raises(DistillError, match=message) as caught:
        sampler.batches(10, seed=seed, batch_size=batch_size, start_step=step)
    assert "\n" not in str(caught.value)
    with pytest.raises(DistillError, match=message):
        sampler.batch_indices(seed, step, batch_size, 10)

"""The optimisers against hand-written NumPy steps, and the schedules against their corner values."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from distill_lib import optim
from distill_lib.errors import DistillError

LEARNING_RATE, WEIGHT_DECAY, TOTAL, WARMUP = 3e-3, 1e-2, 12, 3
BFLOAT16 = ml_dtypes.bfloat16


def make_params() -> dict:
    """A tree with the kinds of parameters that a model has; all of one size of numbers."""
    numbers = np.random.default_rng(0)
    shapes = {
        "root": {"conv_root": {"kernel": (3, 3, 1, 4)}},
        "gn1": {"scale": (1, 1, 1, 4), "bias": (1, 1, 1, 4)},
        "head": {"kernel": (4, 3), "bias": (3,)},
    }
    return jax.tree.map(
        lambda shape: numbers.normal(0, 0.5, shape).astype(np.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def make_gradients(params: dict, step: int) -> dict:
    """Gradients whose global norm is above 1 at even steps (clipped) and below 1 at odd ones (left alone)."""
    numbers = np.random.default_rng(100 + step)
    size = 0.6 if step % 2 == 0 else 0.02
    return jax.tree.map(lambda value: numbers.normal(0, size, value.shape).astype(np.float32), params)


def multiplier(step: int) -> float:
    """The schedule by hand."""
    rise = min(1.0, step / WARMUP)
    progress = min(max((step - WARMUP) / (TOTAL - WARMUP), 0.0), 1.0)
    return rise * 0.5 * (1 + np.cos(np.pi * progress))


def plain_steps(params: dict, steps: int, decayed: set[str] = frozenset({"kernel"})) -> list[dict]:
    """The paper's chain in NumPy, one parameter tree after each step: clip, Adam, lr, decay, schedule, minus one."""
    flat = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(params)}
    first = {name: np.zeros(value.shape, BFLOAT16) for name, value in flat.items()}
    second = {name: np.zeros_like(value) for name, value in flat.items()}
    history = []
    for step in range(steps):
        tree = make_gradients(params, step)
        gradients = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        norm = np.sqrt(sum(np.square(gradient.astype(np.float64)).sum() for gradient in gradients.values()))
        for name, gradient in gradients.items():
            gradient = gradient / max(1.0, norm)
            moment = (BFLOAT16(0.9) * first[name]).astype(np.float32) + 0.1 * gradient
            first[name] = moment.astype(BFLOAT16)
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            unbiased = moment / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            update = LEARNING_RATE * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
            if any(f"'{kind}'" in name.rsplit("[", 1)[-1] for kind in decayed):
                update = update + WEIGHT_DECAY * flat[name]
            flat[name] = (flat[name] - multiplier(step) * update).astype(np.float32)
        history.append(dict(flat))
    return history


@pytest.fixture(scope="module")
def transform() -> optax.GradientTransformation:
    """The optimiser under test."""
    return optim.create("adam", LEARNING_RATE, WEIGHT_DECAY, total_steps=TOTAL, warmup_steps=WARMUP)


@pytest.mark.slow
def test_the_chain_equals_a_step_by_hand(transform: optax.GradientTransformation) -> None:
    """Clip by global norm, Adam with a bfloat16 first moment, x lr, + wd x kernel, x schedule, x -1: a whole run."""
    start = make_params()
    params = jax.tree.map(jnp.asarray, start)
    state = transform.init(params)
    for step, expected in enumerate(plain_steps(start, TOTAL)):
        gradients = jax.tree.map(jnp.asarray, make_gradients(start, step))
        updates, state = transform.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for path, value in jax.tree_util.tree_leaves_with_path(params):
            name = jax.tree_util.keystr(path)
            np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-6, err_msg=f"{name}, step {step}")


def test_the_hand_written_step_can_tell_what_is_decayed() -> None:
    """Decaying all parameters instead of the kernels moves them further than the tolerance of the test above."""
    ours, all_decayed = (
        plain_steps(make_params(), 4)[-1],
        plain_steps(make_params(), 4, {"kernel", "bias", "scale"})[-1],
    )
    name = "['gn1']['scale']"
    assert np.abs(ours[name] - all_decayed[name]).max() > 1e-3


def test_first_moment_is_kept_in_bfloat16(transform: optax.GradientTransformation) -> None:
    """Half the memory for the first moment; the second one stays float32."""
    state = transform.init(jax.tree.map(jnp.asarray, make_params()))
    adam = next(part for part in state if isinstance(part, optax.ScaleByAdamState))
    assert {leaf.dtype for leaf in jax.tree.leaves(adam.mu)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(adam.nu)} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("learning_rate", [1e-4, 1e-1])
def test_weight_decay_is_not_multiplied_by_the_learning_rate(learning_rate: float) -> None:
    """With zero gradients a kernel shrinks by wd x schedule, whatever lr; biases and GroupNorm stay as they are."""
    transform = optim.create("adam", learning_rate, WEIGHT_DECAY, total_steps=TOTAL, warmup_steps=WARMUP)
    params = jax.tree.map(jnp.asarray, make_params())
    state, zeros = transform.init(params), jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):  # the first step of the warm-up has the multiplier 0
        updates, state = transform.update(zeros, state, params)
    np.testing.assert_allclose(
        updates["head"]["kernel"], -multiplier(1) * WEIGHT_DECAY * params["head"]["kernel"], rtol=1e-5
    )
    np.testing.assert_allclose(
        updates["root"]["conv_root"]["kernel"],
        -multiplier(1) * WEIGHT_DECAY * params["root"]["conv_root"]["kernel"],
        rtol=1e-5,
    )
    for untouched in (updates["head"]["bias"], updates["gn1"]["scale"], updates["gn1"]["bias"]):
        np.testing.assert_array_equal(untouched, jnp.zeros_like(untouched))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0), (250, 0.5), (500, 1), (1500, 0.5), (2500, 0), (9999, 0), (1000, 0.5 + 0.5**1.5)]
)
def test_schedule_at_its_corners(step: int, expected: float) -> None:
    """Zero at the start, one at the end of the warm-up, half a cosine down to zero, and zero ever after."""
    schedule = optim.multiplier("cosine", 2500, 500)
    np.testing.assert_allclose(schedule(jnp.asarray(step)), expected, atol=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, 0), (250, 0.5), (500, 1), (1500, 0.25), (2500, 0), (9999, 0)])
def test_quadratic_schedule_at_its_corners(step: int, expected: float) -> None:
    """A line up to the peak, then a parabola whose vertex is the end."""
    schedule = optim.multiplier("quadratic", 2500, 500)
    np.testing.assert_allclose(schedule(jnp.asarray(step)), expected, atol=1e-6)


@pytest.mark.parametrize("total", [500, 10_000, 20_000])
def test_staircase_falls_to_a_tenth_after_30_60_and_90_percent(total: int) -> None:
    """Flat between a linear warm-up and the end, and each stair exactly where it belongs; constants or traced."""
    schedule = jax.jit(lambda total, step: optim.multiplier("staircase", total, 100)(step))
    stairs = [(0, 0.0), (50, 0.5), (100, 1.0), (total, 1e-3), (2 * total, 1e-3)]
    for tenths, before in ((3, 1.0), (6, 0.1), (9, 0.01)):
        stairs += [(tenths * total // 10 - 1, before), (tenths * total // 10, before / 10)]
    for step, expected in stairs:
        np.testing.assert_allclose(schedule(jnp.int32(total), jnp.int32(step)), expected, rtol=1e-5, err_msg=f"{step}")
        np.testing.assert_allclose(optim.multiplier("staircase", total, 100)(jnp.asarray(step)), expected, rtol=1e-5)


def test_a_constant_schedule_stays_at_its_peak() -> None:
    """After the warm-up nothing falls, however long the run."""
    values = optim.multiplier("constant", 2500, 500)(jnp.asarray([0, 250, 500, 2500, 9999]))
    np.testing.assert_allclose(values, [0, 0.5, 1, 1, 1])


def test_without_warmup_the_schedule_starts_at_its_peak() -> None:
    """A run without warm-up must not waste its first step."""
    np.testing.assert_allclose(optim.multiplier("cosine", 10, 0)(jnp.asarray(0)), 1.0, atol=1e-6)
    np.testing.assert_allclose(optim.multiplier("cosine", 10, 0)(jnp.asarray(5)), 0.5, atol=1e-6)


def test_numbers_may_be_traced() -> None:
    """Schedules and rates that are arguments of a compiled step give what constants give."""
    params = jax.tree.map(jnp.asarray, make_params())
    gradients = jax.tree.map(jnp.asarray, make_gradients(make_params(), 0))

    @jax.jit
    def second_update(rate: jax.Array, decay: jax.Array, total: jax.Array, warmup: jax.Array) -> dict:
        transform = optim.create("adam", rate, decay, total_steps=total, warmup_steps=warmup)
        _, state = transform.update(gradients, transform.init(params), params)
        return transform.update(gradients, state, params)[0]

    traced = second_update(jnp.float32(LEARNING_RATE), jnp.float32(WEIGHT_DECAY), jnp.int32(TOTAL), jnp.int32(WARMUP))
    transform = optim.create("adam", LEARNING_RATE, WEIGHT_DECAY, total_steps=TOTAL, warmup_steps=WARMUP)
    _, state = transform.update(gradients, transform.init(params), params)
    constant, _ = transform.update(gradients, state, params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2**-7), traced, constant)  # bfloat16


def moved(gradients: list[dict], optimizer: str, **settings) -> list[dict]:
    """What an optimiser adds to the parameters in each step, at its peak from the first step on."""
    params = jax.tree.map(jnp.asarray, make_params())
    usual = {"learning_rate": LEARNING_RATE, "weight_decay": 0.0, "total_steps": 10**9, "warmup_steps": 0}
    transform = optim.create(optimizer, **(usual | settings))
    state, found, update = transform.init(params), [], jax.jit(transform.update)
    for tree in gradients:
        updates, state = update(tree, state, params)
        found.append(updates)
    return found


@pytest.mark.parametrize("optimizer", optim.OPTIMIZERS)
def test_weight_decay_by_either_convention(optimizer: str) -> None:
    """Without gradients kernels shrink by wd, or by lr x wd as AdamW has it, by any optimiser; nothing else moves."""
    params = make_params()
    zeros = jax.tree.map(np.zeros_like, params)
    for decay, factor in (("schedule", WEIGHT_DECAY), ("adamw", LEARNING_RATE * WEIGHT_DECAY)):
        (updates,) = moved([zeros], optimizer, weight_decay=WEIGHT_DECAY, decay=decay)
        shrunk = -factor * params["head"]["kernel"]
        np.testing.assert_allclose(updates["head"]["kernel"], shrunk, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(updates["gn1"]["scale"], zeros["gn1"]["scale"], atol=1e-6)


def test_sgd_has_plain_momentum_of_the_clipped_gradient() -> None:
    """v <- .9 v + g and a step of lr v: no Nesterov, no damping, v kept in bfloat16."""
    gradients = [make_gradients(make_params(), step) for step in range(3)]
    velocity = 0.0
    for tree, updates in zip(gradients, moved(gradients, "sgd"), strict=True):
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
        velocity = 0.9 * velocity + tree["head"]["kernel"] / max(1.0, norm)
        np.testing.assert_allclose(updates["head"]["kernel"], -LEARNING_RATE * velocity, rtol=2**-6, atol=1e-6)


def test_unclipped_sgd_takes_gradients_as_they_are() -> None:
    """v <- .9 v + g for gradients of any length, v kept in float32."""
    gradients = [make_gradients(make_params(), step) for step in range(3)]
    velocity = 0.0
    for tree, updates in zip(gradients, moved(gradients, "sgd_unclipped"), strict=True):
        velocity = 0.9 * velocity + tree["head"]["kernel"]
        np.testing.assert_allclose(updates["head"]["kernel"], -LEARNING_RATE * velocity, rtol=1e-5, atol=1e-7)


def test_muon_makes_steps_of_hidden_kernels_orthogonal() -> None:
    """A convolution's step, seen as (h w in, out), has nearly equal singular values; head and scales move by NAdam."""
    gradients = [make_gradients(make_params(), 1)]
    (updates,), nadam = moved(gradients, "muon"), optax.nadam(LEARNING_RATE)
    by_adam, _ = nadam.update(gradients[0], nadam.init(gradients[0]))
    kernel = np.asarray(updates["root"]["conv_root"]["kernel"])
    values = np.linalg.svd(kernel.reshape(9, 4), compute_uv=False)
    assert values.max() < 2 * values.min()
    given = gradients[0]["root"]["conv_root"]["kernel"].reshape(9, 4)
    assert np.vdot(kernel, given) < -0.5 * np.linalg.norm(kernel) * np.linalg.norm(given)
    assert (
        0.1 < np.sqrt(np.square(kernel).mean()) / LEARNING_RATE < 0.3
    )  # 0.2 by its reference, to the iteration's error
    for name in ("head", "gn1"):
        for one, other in zip(*(jax.tree.leaves(tree[name]) for tree in (updates, by_adam)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4)


def test_schedule_free_equals_its_steps_by_hand() -> None:
    """Gradients at y = .1 z + .9 x move z by Adam without momentum, and x is the mean of z, squared rates its weights.

    Defazio et al., "The road less scheduled", 2024, algorithm 1.
    """
    params = make_params()
    transform = optim.create(
        "schedule_free", LEARNING_RATE, WEIGHT_DECAY, total_steps=TOTAL, warmup_steps=WARMUP, schedule="constant"
    )
    given, update = jax.tree.map(jnp.asarray, params), jax.jit(transform.update)
    state = transform.init(given)
    x = y = z = params["head"]["kernel"].astype(np.float64)
    second, weights = 0.0, 0.0
    for step in range(TOTAL):
        gradients = make_gradients(params, step)
        norm = np.sqrt(sum(np.square(leaf.astype(np.float64)).sum() for leaf in jax.tree.leaves(gradients)))
        gradient, rate = gradients["head"]["kernel"] / max(1.0, norm), min(1.0, step / WARMUP)
        second = 0.999 * second + 0.001 * gradient**2
        adam = gradient / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
        z = z - rate * (LEARNING_RATE * adam + WEIGHT_DECAY * y)
        weights += rate**2
        x = x + (rate**2 / weights if weights else 0.0) * (z - x)
        y = 0.1 * z + 0.9 * x
        updates, state = update(gradients, state, given)
        given = optax.apply_updates(given, updates)
        for ours, by_hand in ((given, y), (optim.averaged(given, state), x)):
            np.testing.assert_allclose(ours["head"]["kernel"], by_hand, rtol=1e-5, atol=2e-6, err_msg=f"step {step}")
    assert np.abs(x - y).max() > 1e-4, "the two must be told apart"


def test_other_optimizers_average_nothing() -> None:
    """Their students are the parameters themselves, not a copy."""
    params = make_params()
    state = optim.create("adam", 1.0, 0.0, total_steps=1, warmup_steps=0).init(params)
    assert optim.averaged(params, state) is params


def test_shampoo_is_part_of_the_chain() -> None:
    """After its first statistics a kernel's step is no longer Adam's, and a schedule of either kind applies to it."""
    gradients = [make_gradients(make_params(), step) for step in range(12)]
    steps, halved = (moved(gradients, "shampoo", learning_rate=rate) for rate in (1.0, 0.5))
    kernel = steps[-1]["head"]["kernel"]
    np.testing.assert_allclose(halved[-1]["head"]["kernel"], 0.5 * kernel, rtol=1e-5)
    assert np.isfinite(kernel).all()
    assert 0.1 < np.sqrt(np.square(kernel).mean()) < 1  # the size of an average of Adam's steps


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"optimizer": "shampo"}, "optimizer 'shampo'. Did you mean 'shampoo'"),
        ({"schedule": "linear"}, "schedule 'linear'. Valid: cosine, quadratic, staircase, constant"),
        ({"decay": "adam"}, "decay 'adam'. Did you mean 'adamw'"),
    ],
)
def test_unknown_names_are_refused(names: dict, expected: str) -> None:
    """The error lists what there is."""
    with pytest.raises(DistillError, match=re.escape(expected)):
        optim.create(**({"optimizer": "adam"} | names), learning_rate=1, weight_decay=0, total_steps=1, warmup_steps=0)

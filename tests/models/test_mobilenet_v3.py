"""MobileNet v3 and the blocks that it shares with EfficientNet-Lite; timm's numbers are in test_golden.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import seeded

from distill_lib import models, weights
from distill_lib.models import layers, mobile_layers
from distill_lib.models.mobile_layers import ConvNorm, Layers, MobileNet, Row

SEED = 3
SIDE = 32
STAGES = (  # every kind of block once, so that nothing takes long to compile
    (Row(3, 16, 16, True, "relu", 1),),
    (Row(3, 64, 24, False, "relu", 2), Row(5, 72, 24, True, "hard_swish", 1)),
)


def tiny(norm: str, dtype: str = "float32") -> MobileNet:
    """A network of three blocks and ten classes."""
    return MobileNet(10, 16, STAGES, 48, 32, "hard_swish", Layers(norm=norm), dtype)


def drawn(model, side: int = SIDE) -> tuple[dict, np.ndarray]:
    """Variables and four images out of a seed."""
    return seeded.variables(models.shapes(model, (side, side, 3)), SEED), seeded.images(SEED, 4, side)


def worst(found, expected) -> float:
    """Largest difference, relative to the largest expected number."""
    return float(np.abs(np.asarray(found, np.float32) - expected).max() / np.abs(expected).max())


def plain_conv(x: np.ndarray, kernel: np.ndarray, stride: int, pads: tuple[int, int], *, depthwise: bool) -> np.ndarray:
    """Slides a kernel (k, k, inputs, outputs) over an image with (before, after) zeros around it."""
    size = kernel.shape[0]
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    steps = range(0, padded.shape[1] - size + 1, stride)
    windows = np.array([[padded[:, i : i + size, j : j + size] for j in steps] for i in steps])
    if depthwise:
        return np.einsum("rcbhwi,hwi->brci", windows, kernel[:, :, 0])
    return np.einsum("rcbhwi,hwio->brco", windows, kernel)


@pytest.mark.parametrize(("size", "count"), [("large", 5_483_032), ("small", 2_542_856)])
@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_published_sizes(size: str, norm: str, count: int) -> None:
    """5.48 M and 2.54 M parameters at 1,000 classes, in float32; only BatchNorm has statistics."""
    shapes = models.shapes(models.create(f"mobilenet_v3_{size}_{norm}", 1000), (224, 224, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count
    assert ("batch_stats" in shapes) == (norm == "bn")


def test_widths_are_multiples_of_8_as_in_the_paper() -> None:
    """The squeeze-excite of MobileNet rounds a quarter of the channels so, and 18 becomes 24, not 16."""
    quarters = {16: 8, 72: 24, 96: 24, 120: 32, 240: 64, 480: 120, 672: 168, 960: 240}
    assert {width: mobile_layers.divisible_by_8(width / 4) for width in quarters} == quarters


@pytest.mark.parametrize(
    ("size", "stride", "side", "same", "pads"),
    [
        (3, 2, 8, False, (1, 1)),
        (5, 2, 8, False, (2, 2)),
        (5, 2, 7, False, (2, 2)),
        (3, 2, 8, True, (0, 1)),
        (5, 2, 8, True, (1, 2)),
        (5, 2, 7, True, (2, 2)),
        (5, 1, 7, True, (2, 2)),
        (1, 1, 7, False, (0, 0)),
    ],
)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution(size: int, stride: int, side: int, same: bool, pads: tuple[int, int], depthwise: bool) -> None:
    """Padding is PyTorch's, the same at both ends, or TensorFlow's; each channel of a depthwise one is for itself."""
    if depthwise and size == 1:
        return
    numbers = np.random.default_rng(SEED)
    x = numbers.standard_normal((2, side, side, 8), np.float32)
    module = mobile_layers.Conv(8, Layers(same=same, folded=True), size, stride, depthwise)
    kernel = numbers.standard_normal((size, size, 1 if depthwise else 8, 8), np.float32)
    bias = numbers.standard_normal(8, np.float32)
    found = module.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = plain_conv(x, kernel, stride, pads, depthwise=depthwise)
    np.testing.assert_allclose(found, expected + bias, atol=1e-4)
    if depthwise:  # what accelerators run in its place
        np.testing.assert_allclose(layers.convolve(x, kernel, stride, [pads] * 2, groups=8), expected, atol=1e-4)


def test_group_norm_has_eight_groups() -> None:
    """The paper's student: mean and variance over pixels and an eighth of the channels, of each image for itself."""
    x = np.random.default_rng(SEED).standard_normal((2, 5, 5, 16), np.float32)
    module = ConvNorm(32, Layers(norm="gn"), activation="hard_swish")
    variables = seeded.variables(jax.eval_shape(module.init, jax.random.key(0), x), SEED)
    params = variables["params"]
    y = plain_conv(x, params["conv"]["kernel"], 1, (0, 0), depthwise=False)
    groups = y.reshape(2, 5, 5, 8, 4)
    groups = groups - groups.mean(axis=(1, 2, 4), keepdims=True)
    y = (groups / np.sqrt(np.square(groups).mean(axis=(1, 2, 4), keepdims=True) + 1e-5)).reshape(y.shape)
    y = y * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(module.apply(variables, x), y * np.clip(y + 3, 0, 6) / 6, atol=1e-4)


@pytest.mark.parametrize("layers", [Layers(), Layers(epsilon=1e-3, momentum=0.99, same=True)])
def test_batch_norm_in_training_and_inference(layers: Layers) -> None:
    """Training: mean and variance of the batch, and a share of them goes into the running ones. Inference: those."""
    x = np.random.default_rng(SEED).standard_normal((3, 6, 6, 4), np.float32)
    module = ConvNorm(5, layers, 3)
    variables = seeded.variables(jax.eval_shape(module.init, jax.random.key(0), x), SEED)
    norm, old = variables["params"]["norm"], variables["batch_stats"]["norm"]
    y = plain_conv(x, variables["params"]["conv"]["kernel"], 1, (1, 1), depthwise=False)
    now = {"mean": y.mean(axis=(0, 1, 2)), "var": y.var(axis=(0, 1, 2))}

    def normalised(by: dict) -> np.ndarray:
        return (y - by["mean"]) / np.sqrt(by["var"] + layers.epsilon) * norm["scale"] + norm["bias"]

    found, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, normalised(now), atol=1e-4)
    for kind, value in changed["batch_stats"]["norm"].items():
        expected = layers.momentum * old[kind] + (1 - layers.momentum) * now[kind]
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(module.apply(variables, x), normalised(old), atol=1e-4)


@pytest.mark.slow
def test_training_changes_all_statistics_and_inference_none() -> None:
    """`train` reaches every layer; a forgotten one would keep the statistics it started with."""
    model = tiny("bn")
    variables, images = drawn(model)
    logits, changed = jax.jit(lambda v, x: models.train_logits(model, v, x))(variables, images)
    assert list(changed) == ["batch_stats"]
    before, after = (weights.flatten(tree["batch_stats"]) for tree in (variables, changed))
    assert before.keys() == after.keys()
    assert all((after[name] != before[name]).any() for name in before)
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    batch = plain_conv(images, kernel, 2, (1, 1), depthwise=False).mean(axis=(0, 1, 2))
    old = variables["batch_stats"]["stem"]["norm"]["mean"]
    np.testing.assert_allclose(after["stem/norm/mean"], 0.9 * old + 0.1 * batch, atol=1e-5)
    assert worst(models.logits(model, variables, images), logits) > 0.01


@pytest.mark.slow
def test_group_norm_has_no_training_mode() -> None:
    """The same logits in training and inference, and no statistics."""
    model = tiny("gn")
    variables, images = drawn(model)
    logits, changed = models.train_logits(model, variables, images)
    assert not changed
    np.testing.assert_array_equal(logits, models.logits(model, variables, images))


def test_a_new_network_says_nothing() -> None:
    """The head starts at zero: all classes are equally likely, whatever the image. The layer before it does not."""
    model = models.create("mobilenet_v3_small_gn", 10)

    @jax.jit  # so that the layers which are not asked for are not drawn
    def start(key: jax.Array) -> dict:
        params = model.init(key, jnp.zeros((1, SIDE, SIDE, 3)))["params"]
        return {name: params[name] for name in ("head", "hidden")}

    params = start(jax.random.key(0))
    assert not params["head"]["kernel"].any() and not params["head"]["bias"].any()
    assert params["hidden"]["kernel"].any()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["gn", "bn"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fold(norm: str, dtype: str) -> None:
    """A frozen network without BatchNorm gives the same logits; kernels are kept in the dtype they are used in."""
    model = tiny(norm, dtype)
    variables, images = drawn(model)
    folded, small = model.fold(variables)
    assert list(small) == ["params"]
    flat = weights.flatten(small["params"])
    assert not any("/norm/" in name for name in flat) if norm == "bn" else any("/norm/" in name for name in flat)
    for name, value in flat.items():
        assert value.dtype == (dtype if name.endswith("conv/kernel") else "float32"), name
    expected = np.asarray(models.logits(model, variables, images))
    assert worst(models.logits(folded, small, images), expected) < (1e-5 if dtype == "float32" else 0.05)


@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_bfloat16(norm: str) -> None:
    """Activations in half precision, parameters and logits not; logits differ by less than 5 % of the largest."""
    exact, half = (tiny(norm, dtype) for dtype in ("float32", "bfloat16"))
    variables, images = drawn(exact)
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, *(models.shapes(m, (SIDE, SIDE, 3)) for m in (exact, half))))
    features = parity.features(half, variables, images)
    assert {features[name].dtype for name in ("stem", "stage1", "stage2", "last")} == {jnp.dtype(jnp.bfloat16)}
    assert features["hidden"].dtype == features["head"].dtype == jnp.float32
    assert 1e-5 < worst(features["head"], np.asarray(models.logits(exact, variables, images))) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_gradients_reach_every_parameter(norm: str) -> None:
    """Training moves all of them, in half precision too."""
    model = tiny(norm, "bfloat16")
    variables, images = drawn(model)

    @jax.jit
    @jax.grad
    def gradients(params: dict) -> jax.Array:
        logits, _ = models.train_logits(model, variables | {"params": params}, images)
        return jnp.square(logits).mean()

    for name, value in weights.flatten(gradients(variables["params"])).items():
        assert value.dtype == jnp.float32 and np.isfinite(value).all(), name
        # the next BatchNorm takes out what the bias of a block's output adds: its gradient is zero, to rounding
        assert np.asarray(value).any() or (norm == "bn" and name.endswith("project/norm/bias")), name

"""Models: sizes and names of the published ones, and every layer against a plain NumPy reference."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tiny
from flax import linen as nn

from distill_lib import models, weights
from distill_lib.errors import DistillError
from distill_lib.models import bit

UNITS = {50: (3, 4, 6, 3), 152: (3, 8, 36, 3)}


def shapes(name: str, num_classes: int, side: int = 64) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's parameters by name; nothing is computed."""
    model = models.create(name, num_classes)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(jnp.float32)}
    return {path: leaf.shape for path, leaf in weights.flatten(tree).items()}


def published_shapes(depth: int, factor: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the published .npz files of a BiT ResNet."""
    width, channels = 64 * factor, 64 * factor
    found: dict[str, tuple[int, ...]] = {"root_block/conv_root/kernel": (7, 7, 3, width)}
    norms: dict[str, int] = {}
    for block, units in enumerate(UNITS[depth]):
        middle = width * 2**block
        for unit in range(units):
            at = f"block{block + 1}/unit{unit + 1:02d}"
            found[f"{at}/conv1/kernel"] = (1, 1, channels, middle)
            found[f"{at}/conv2/kernel"] = (3, 3, middle, middle)
            found[f"{at}/conv3/kernel"] = (1, 1, middle, 4 * middle)
            if unit == 0:
                found[f"{at}/conv_proj/kernel"] = (1, 1, channels, 4 * middle)
            norms |= {f"{at}/gn1": channels, f"{at}/gn2": middle, f"{at}/gn3": middle}
            channels = 4 * middle
    norms["norm-pre-head"] = channels
    found |= {f"{norm}/{kind}": (1, 1, 1, size) for norm, size in norms.items() for kind in ("scale", "bias")}
    return found | {"head/kernel": (channels, num_classes), "head/bias": (num_classes,)}


@pytest.mark.parametrize(("depth", "factor", "millions"), [(50, 1, 25.55), (152, 2, 236.34)])
def test_paper_models_have_the_published_names_and_sizes(depth: int, factor: int, millions: float) -> None:
    """So that a published checkpoint loads without renaming: 25.55 M (student) and 236.34 M parameters (teacher)."""
    found = shapes(f"bit_r{depth}x{factor}", 1000)
    assert found == published_shapes(depth, factor, 1000)
    assert round(sum(int(np.prod(shape)) for shape in found.values()) / 1e6, 2) == millions


def test_every_name_can_be_created() -> None:
    """`names()` promises nothing that `create` refuses, and the number of classes is that of the head."""
    assert {"bit_r26x1", "bit_r50x1", "bit_r101x1", "bit_r152x2", "bit_r11w8", "bit_r11w24"} <= set(models.names())
    for name in models.names():
        model = models.create(name, num_classes=37, dtype="bfloat16")
        assert (model.num_classes, model.dtype) == (37, "bfloat16")


@pytest.mark.parametrize(
    "name",
    ["bit_r51x1", "bit_r50x9", "bit_r11w7", "bit_r11w0", "vit_l16", "mobilenet_v3_large", "lite0", ""],
)
def test_unknown_names_are_told_with_the_known_ones(name: str) -> None:
    """One line, and it lists what there is."""
    with pytest.raises(DistillError, match=f"unknown model '{name}'.*Valid: .*bit_r50x1.*bit_r11w8") as caught:
        models.create(name, 10)
    assert "\n" not in str(caught.value)


def plain_group_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    """Reshape to groups, subtract the mean, divide by the biased standard deviation; eps 1e-5."""
    grouped = x.reshape(*x.shape[:3], groups, -1)
    mean, variance = grouped.mean(axis=(1, 2, 4), keepdims=True), grouped.var(axis=(1, 2, 4), keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias


def plain_conv(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Standardises the kernel over (H, W, input channels), eps 1e-10, and slides it over the zero-padded image."""
    kernel = kernel - kernel.mean(axis=(0, 1, 2))
    kernel = kernel / np.sqrt(np.square(kernel).mean(axis=(0, 1, 2)) + 1e-10)
    side, pad = kernel.shape[0], kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = range(0, padded.shape[1] - side + 1, stride)
    columns = range(0, padded.shape[2] - side + 1, stride)
    windows = [[padded[:, i : i + side, j : j + side] for j in columns] for i in rows]
    return np.einsum("rcbhwi,hwio->brco", np.array(windows), kernel)


def plain_max_pool(x: np.ndarray) -> np.ndarray:
    """3x3 windows, stride 2, padded by one with zeros, which count where all else is negative."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [
        [padded[:, i : i + 3, j : j + 3].max(axis=(1, 2)) for j in range(0, x.shape[2], 2)]
        for i in range(0, x.shape[1], 2)
    ]
    return np.array(windows).transpose(2, 0, 1, 3)


def plain_bit(params: dict, images: np.ndarray, *, groups: int, stem_stride: int, pool: bool) -> np.ndarray:
    """The whole network in float64: stem, pre-activation bottlenecks, pooling and head."""

    def norm_relu(x: np.ndarray, part: dict) -> np.ndarray:
        return np.maximum(plain_group_norm(x, part["scale"], part["bias"], groups), 0)

    x = plain_conv(images, params["root_block"]["conv_root"]["kernel"], stem_stride)
    x = plain_max_pool(x) if pool else x
    for block in sorted(name for name in params if name.startswith("block")):
        for index, (_, unit) in enumerate(sorted(params[block].items())):
            stride = 2 if block != "block1" and index == 0 else 1
            active = norm_relu(x, unit["gn1"])
            shortcut = plain_conv(active, unit["conv_proj"]["kernel"], stride) if "conv_proj" in unit else x
            y = norm_relu(plain_conv(active, unit["conv1"]["kernel"], 1), unit["gn2"])
            y = norm_relu(plain_conv(y, unit["conv2"]["kernel"], stride), unit["gn3"])
            x = shortcut + plain_conv(y, unit["conv3"]["kernel"], 1)
    features = norm_relu(x, params["norm-pre-head"]).mean(axis=(1, 2))
    return features @ params["head"]["kernel"] + params["head"]["bias"]


def random_like(tree: dict, seed: int = 0) -> dict:
    """Random numbers in the shapes of a tree, off-centre so that a forgotten mean or bias shows."""
    numbers = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: numbers.normal(0.3, 1, leaf.shape).astype(np.float32), tree)


@pytest.mark.parametrize(("stem", "side"), [((3, 1, False), 6), ((7, 2, True), 16)])
def test_the_whole_network_equals_a_plain_one(stem: tuple[int, int, bool], side: int) -> None:
    """Order of the layers, strides, padding, where the projection starts, pooling: all in one number a class."""
    model = bit.BiT(3, stages=(2, 1), width=4, groups=2, stem=stem)
    numbers = np.random.default_rng(1)
    patches = numbers.uniform(-1, 1, (6, 2, 2, 3)).repeat(side // 2, 1).repeat(side // 2, 2)  # so that borders count
    images = (0.7 * patches + 0.3 * numbers.uniform(-1, 1, (6, side, side, 3))).astype(np.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(images))["params"]
    params = random_like(tree)
    found = jax.jit(model.apply)({"params": params}, images)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    expected = plain_bit(wide, images.astype(np.float64), groups=2, stem_stride=stem[1], pool=stem[2])
    assert found.shape == (6, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_group_norm_equals_the_plain_formula() -> None:
    """Value against reshaping to groups, for activations whose mean is not zero."""
    numbers = np.random.default_rng(0)
    x = numbers.normal(2, 3, (2, 5, 4, 12)).astype(np.float32)
    scale, bias = numbers.normal(1, 1, 12).astype(np.float32), numbers.normal(0, 1, 12).astype(np.float32)
    params = {"scale": scale.reshape(1, 1, 1, 12), "bias": bias.reshape(1, 1, 1, 12)}
    found = bit.GroupNorm(groups=3).apply({"params": params}, jnp.asarray(x))
    np.testing.assert_allclose(found, plain_group_norm(x.astype(np.float64), scale, bias, 3), atol=2e-5)


def test_group_norm_of_constant_activations_is_the_bias() -> None:
    """No variance must give no NaN, also where rounding would make the variance negative."""
    x = jnp.full((1, 3, 3, 4), 1000.1)
    found = bit.GroupNorm(groups=2).apply(
        {"params": {"scale": jnp.ones((1, 1, 1, 4)), "bias": jnp.ones((1, 1, 1, 4))}}, x
    )
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, 1.0, atol=0.05)


def test_gradient_of_group_norm_equals_that_of_the_plain_formula() -> None:
    """The gradient is written by hand: compare it with what JAX derives from reshaping to groups."""
    numbers = np.random.default_rng(3)
    x, weight = (jnp.asarray(numbers.normal(1, 2, (2, 4, 3, 8)), jnp.float32) for _ in range(2))
    params = {name: jnp.asarray(numbers.normal(1, 1, (1, 1, 1, 8)), jnp.float32) for name in ("scale", "bias")}

    def plain(params: dict, x: jax.Array) -> jax.Array:
        grouped = x.reshape(2, 4, 3, 2, 4)
        mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
        variance = jnp.square(grouped - mean).mean(axis=(1, 2, 4), keepdims=True)
        return ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape) * params["scale"] + params["bias"]

    def gradients(function: Callable) -> tuple:
        return jax.jit(jax.grad(lambda params, x: jnp.sum(weight * function(params, x) ** 2), argnums=(0, 1)))(
            params, x
        )

    ours = gradients(lambda params, x: bit.GroupNorm(groups=2).apply({"params": params}, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, gradients(plain))


@pytest.mark.parametrize(("side", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (5, 2), (7, 2)])
def test_standardised_convolution_equals_the_plain_formula(side: int, stride: int) -> None:
    """Every kernel size and stride that the models use, the flat 1x1 path included."""
    numbers = np.random.default_rng(side)
    x, kernel = numbers.normal(0, 1, (2, 9, 8, 3)), numbers.normal(0.5, 2, (side, side, 3, 4))
    layer = bit.StandardizedConv(4, side, stride)
    found = layer.apply({"params": {"kernel": kernel.astype(np.float32)}}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, plain_conv(x, kernel, stride), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_new_model_predicts_nothing() -> None:
    """The head starts at zero, so that the first prediction is uniform whatever the image."""
    model: nn.Module = bit.BiT(5, stages=(1,), width=4, groups=2, stem=(3, 2, False))
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    logits, variables = jax.jit(model.init_with_output)(jax.random.key(0), images)
    params = variables["params"]
    np.testing.assert_array_equal(logits, np.zeros((2, 5)))
    assert float(jnp.abs(params["block1"]["unit01"]["conv2"]["kernel"]).min()) > 0


def small(dtype: str = "float32") -> tuple[bit.BiT, dict, np.ndarray]:
    """A BiT with both kinds of shortcut, random weights and a few images."""
    model = bit.BiT(5, stages=(2, 1), width=8, groups=2, stem=(5, 2, False), dtype=dtype)
    images = np.random.default_rng(1).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    return model, {"params": random_like(models.shapes(model, (16, 16, 3))["params"])}, images


@pytest.mark.slow
def test_penultimate_features_are_what_the_head_makes_logits_of() -> None:
    """Through the head's own matrix they give the logits; a network without such a layer is refused."""
    model, variables, images = small()
    found = models.penultimate(model, variables, images)
    head = variables["params"]["head"]
    expected = models.logits(model, variables, images)
    assert found.shape == (4, head["kernel"].shape[0])
    np.testing.assert_allclose(found @ head["kernel"] + head["bias"][None], expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(DistillError, match="Linear has no layer `head`"):
        models.penultimate(*tiny.linear(3, 16 * 16 * 3), images)


@pytest.mark.parametrize("name", ["mobilenet_v3_small_bn", "vit_ti16", "efficientnet_lite0"])
def test_every_family_has_penultimate_features(name: str) -> None:
    """One vector an image."""
    model = models.create(name, 7)
    variables = models.shapes(model, (32, 32, 3))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    found = jax.eval_shape(lambda *given: models.penultimate(model, *given), variables, images)
    assert found.shape == (2, variables["params"]["head"]["kernel"].shape[0]) and found.dtype == jnp.float32


@pytest.mark.slow
def test_half_precision_changes_logits_little() -> None:
    """Activations in bfloat16 (8 bits of mantissa): logits within 5 % of the largest, and float32."""
    model, variables, images = small()
    half, _, _ = small("bfloat16")
    expected, found = (np.asarray(models.logits(one, variables, images)) for one in (model, half))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    shown = parity.features(half, variables, images)
    assert shown["block1"].dtype == jnp.bfloat16 and shown["head"].dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folded_network_has_the_same_logits(dtype: str) -> None:
    """Weights are standardised once and kept in the dtype they are used in; nothing else changes."""
    model, variables, images = small(dtype)
    frozen, folded = model.fold(variables)
    expected, found = models.logits(model, variables, images), models.logits(frozen, folded, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(jnp.abs(expected).max()))
    kernel = folded["params"]["block1"]["unit01"]["conv2"]["kernel"]
    assert kernel.dtype == dtype and abs(float(kernel.astype(jnp.float32).mean())) < 1e-3
    assert folded["params"]["head"]["kernel"].dtype == jnp.float32
    stored = variables["params"]["block1"]["unit01"]["conv2"]["kernel"]
    assert abs(float(stored.mean())) > 0.1, "what was given must not change"


def test_an_unknown_dtype_is_told() -> None:
    """One line with the valid ones."""
    with pytest.raises(DistillError, match="unknown dtype 'float16'.*Valid: float32, bfloat16"):
        models.create("bit_r11w8", 10, "float16")

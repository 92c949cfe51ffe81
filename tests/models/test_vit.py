"""Vision Transformers: names and sizes of the published ones, a plain NumPy reference, other resolutions and dtypes."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import seeded

from distill_lib import models
from distill_lib.errors import DistillError
from distill_lib.models import vit
from distill_lib.weights import flatten, load_npz, match, pack, save_npz, unpack

SIDE = 12  # pixels: 3 x 3 patches of 4


def small(dtype: str = "float32", width: int = 8) -> vit.ViT:
    """A network of the same build that a test can afford."""
    return vit.ViT(5, width, heads=2, depth=2, patch=4, dtype=dtype)


def drawn(model: vit.ViT, side: int = SIDE) -> tuple[dict, jax.Array]:
    """Variables without zeros, and images."""
    shapes = models.shapes(model, (side, side, 3))
    return seeded.variables(shapes, 1), jnp.asarray(seeded.images(1, 2, side))


@functools.partial(jax.jit, static_argnums=0)
def logits(model: vit.ViT, variables: dict, images: jax.Array) -> jax.Array:
    """Compiled `models.logits`."""
    return models.logits(model, variables, images)


def published_shapes(width: int, num_classes: int, tokens: int = 197) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the published .npz files, by the loader of timm and google-research/vision_transformer."""
    split = (width, width // 64, 64)
    block: dict[str, tuple[int, ...]] = {}
    for part in ("query", "key", "value"):
        block |= {f"MultiHeadDotProductAttention_1/{part}/kernel": split}
        block |= {f"MultiHeadDotProductAttention_1/{part}/bias": split[1:]}
    block |= {"MultiHeadDotProductAttention_1/out/kernel": (*split[1:], width)}
    block |= {"MultiHeadDotProductAttention_1/out/bias": (width,)}
    block |= {f"LayerNorm_{number}/{kind}": (width,) for number in (0, 2) for kind in ("scale", "bias")}
    block |= {"MlpBlock_3/Dense_0/kernel": (width, 4 * width), "MlpBlock_3/Dense_0/bias": (4 * width,)}
    block |= {"MlpBlock_3/Dense_1/kernel": (4 * width, width), "MlpBlock_3/Dense_1/bias": (width,)}
    found = {f"Transformer/encoderblock_{i}/{path}": shape for i in range(12) for path, shape in block.items()}
    found |= {f"Transformer/encoder_norm/{kind}": (width,) for kind in ("scale", "bias")}
    found |= {"embedding/kernel": (16, 16, 3, width), "embedding/bias": (width,), "cls": (1, 1, width)}
    found |= {"Transformer/posembed_input/pos_embedding": (1, tokens, width)}
    return found | {"head/kernel": (width, num_classes), "head/bias": (num_classes,)}


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [("vit_ti16", 192, 5_717_416), ("vit_s16", 384, 22_050_664), ("vit_b16", 768, 86_567_656)],
)
def test_published_names_and_sizes(name: str, width: int, count: int) -> None:
    """So that an AugReg file loads without renaming; the counts are timm's."""
    params = models.shapes(models.create(name, 1000), (224, 224, 3))["params"]
    found = {path: leaf.shape for path, leaf in flatten(params).items()}
    assert found == published_shapes(width, 1000)
    assert sum(math.prod(shape) for shape in found.values()) == count
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("name", "tokens", "count"), [("vit_d4w32p7", 17, 53_386), ("vit_d6w64p4", 50, 305_034)])
def test_small_ones_take_pictures_of_28_pixels(name: str, tokens: int, count: int) -> None:
    """Their names say blocks, width and patch; heads have 16 channels."""
    model = models.create(name, 10)
    params = flatten(models.shapes(model, (28, 28, 1))["params"])
    assert params["Transformer/posembed_input/pos_embedding"].shape == (1, tokens, model.width)
    assert params["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"].shape[2] == 16
    assert f"Transformer/encoderblock_{model.depth - 1}/MlpBlock_3/Dense_0/bias" in params
    assert sum(math.prod(leaf.shape) for leaf in params.values()) == count


def plain_norm(x: np.ndarray, at: dict) -> np.ndarray:
    """Layer normalisation over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * at["scale"] + at["bias"]


def plain_attention(x: np.ndarray, at: dict) -> np.ndarray:
    """Self-attention, head by head and image by image."""
    result = np.zeros_like(x) + at["out"]["bias"]
    for image, tokens in enumerate(x):
        for head in range(at["query"]["kernel"].shape[1]):
            query, key, value = (
                tokens @ at[part]["kernel"][:, head] + at[part]["bias"][head] for part in ("query", "key", "value")
            )
            weights = np.exp(query @ key.T / np.sqrt(query.shape[-1]))
            result[image] += weights / weights.sum(axis=1, keepdims=True) @ value @ at["out"]["kernel"][head]
    return result


def plain_mlp(x: np.ndarray, at: dict) -> np.ndarray:
    """Two dense layers with x * Phi(x) between them."""
    x = x @ at["Dense_0"]["kernel"] + at["Dense_0"]["bias"]
    x = x * np.vectorize(lambda number: (1 + math.erf(number / math.sqrt(2))) / 2)(x)
    return x @ at["Dense_1"]["kernel"] + at["Dense_1"]["bias"]


def plain_vit(params: dict, images: np.ndarray) -> np.ndarray:
    """The whole network in float64: patches row by row, the class token first."""
    kernel = params["embedding"]["kernel"]
    patch, side = kernel.shape[0], images.shape[1]
    rows = [params["cls"][0, 0] + np.zeros((len(images), kernel.shape[-1]))]
    for top in range(0, side, patch):
        for left in range(0, side, patch):
            pixels = images[:, top : top + patch, left : left + patch]
            rows.append(np.tensordot(pixels, kernel, 3) + params["embedding"]["bias"])
    encoder = params["Transformer"]
    x = np.stack(rows, axis=1) + encoder["posembed_input"]["pos_embedding"]
    for index in range(sum(name.startswith("encoderblock") for name in encoder)):
        at = encoder[f"encoderblock_{index}"]
        x = x + plain_attention(plain_norm(x, at["LayerNorm_0"]), at["MultiHeadDotProductAttention_1"])
        x = x + plain_mlp(plain_norm(x, at["LayerNorm_2"]), at["MlpBlock_3"])
    return plain_norm(x, encoder["encoder_norm"])[:, 0] @ params["head"]["kernel"] + params["head"]["bias"]


def test_the_whole_network_equals_a_plain_one() -> None:
    """Order of patches and layers, the scale of attention, the exact GELU: closer than timm's tolerance would show."""
    model = small()
    variables, images = drawn(model)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables["params"])
    expected = plain_vit(wide, np.asarray(images, np.float64))
    found = logits(model, variables, images)
    assert found.dtype == jnp.float32 and float(np.std(expected)) > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_layer_norm_has_the_published_epsilon() -> None:
    """It shows only for tokens that are almost constant."""
    x = jnp.asarray(np.random.default_rng(0).normal(0, 1e-3, (1, 3, 8)), jnp.float32)
    block = vit.Block(2, "float32")
    params = seeded.variables(jax.eval_shape(block.init, jax.random.key(0), x), 2)["params"]
    at = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    expected = np.asarray(x, np.float64)
    expected = expected + plain_attention(plain_norm(expected, at["LayerNorm_0"]), at["MultiHeadDotProductAttention_1"])
    expected = expected + plain_mlp(plain_norm(expected, at["LayerNorm_2"]), at["MlpBlock_3"])
    np.testing.assert_allclose(jax.jit(block.apply)({"params": params}, x), expected, atol=2e-5)


def test_a_new_model_predicts_nothing_and_training_is_inference() -> None:
    """The head starts at zero, and nothing is drawn at random: consistent teaching needs no dropout."""
    model = small()
    fresh = models.init(model, jax.random.key(0), (SIDE, SIDE, 3))
    variables, images = drawn(model)
    np.testing.assert_array_equal(logits(model, fresh, images), np.zeros((2, 5)))
    trained, changed = jax.jit(lambda *args: models.train_logits(model, *args))(variables, images)
    np.testing.assert_array_equal(trained, logits(model, variables, images))
    assert not changed


@pytest.mark.parametrize("shape", [(10, 10, 3), (12, 8, 3), (3, 3, 3)])
def test_images_that_are_not_squares_of_whole_patches_are_refused(shape: tuple[int, int, int]) -> None:
    """A rest of pixels would be dropped without a word."""
    with pytest.raises(DistillError, match=f"images of {shape[0]} x {shape[1]} pixels .* that 4 divides"):
        models.shapes(small(), shape)


def test_images_of_another_side_than_the_position_embedding_are_refused() -> None:
    """One line that names the way out, and that way works."""
    model = small()
    variables, _ = drawn(model)
    images = jnp.zeros((1, 16, 16, 3))
    with pytest.raises(DistillError, match=r"\(1, 10, 8\).* \(1, 17, 8\); resize it .*resize_positions") as caught:
        models.logits(model, variables, images)
    assert "\n" not in str(caught.value)
    embedding = variables["params"]["Transformer"]["posembed_input"]
    embedding["pos_embedding"] = vit.resize_positions(embedding["pos_embedding"], 4)
    assert logits(model, variables, images).shape == (1, 5)


def plain_resize(grid: np.ndarray, new: int) -> np.ndarray:
    """Bilinear interpolation (rows, columns, width) between centres of patches, the border ones repeated."""
    for axis in (0, 1):
        old = grid.shape[axis]
        at = (np.arange(new) + 0.5) * old / new - 0.5
        grid = np.apply_along_axis(lambda line, old=old, at=at: np.interp(at, np.arange(old), line), axis, grid)
    return grid


@pytest.mark.parametrize("patches", [1, 2, 3, 4, 5, 11])
def test_positions_are_resized_bilinearly(patches: int) -> None:
    """The grid follows the image, larger or smaller; the class token stays."""
    before = drawn(small())[0]["params"]["Transformer"]["posembed_input"]["pos_embedding"]
    found = np.asarray(vit.resize_positions(before, patches))
    expected = plain_resize(np.asarray(before)[0, 1:].reshape(3, 3, 8), patches).reshape(-1, 8)
    np.testing.assert_array_equal(found[0, 0], before[0, 0])
    np.testing.assert_allclose(found[0, 1:], expected, atol=1e-5)


def test_positions_that_cannot_be_resized_are_refused() -> None:
    """A file whose grid is no square."""
    with pytest.raises(DistillError, match="9 tokens is not a square"):
        vit.resize_positions(np.zeros((1, 9, 8), np.float32), 4)


def test_files_with_another_head_are_refused(tmp_path: Path) -> None:
    """Published files of ImageNet-21k: the list of arrays says what is wrong, and nothing is dropped in silence."""
    shapes = models.shapes(small(), (SIDE, SIDE, 3))
    tree = pack(seeded.variables(shapes, 1))
    save_npz(tmp_path / "whole.npz", tree)
    loaded = unpack(load_npz(tmp_path / "whole.npz"))
    assert match(loaded["params"], shapes["params"], "whole.npz") is loaded["params"]
    tree |= {"pre_logits": {"kernel": np.zeros((8, 8))}, "head": {"kernel": np.zeros((8, 21)), "bias": np.zeros(21)}}
    with pytest.raises(DistillError, match=r"head/bias has shape .*head/kernel has shape .*surplus pre_logits/kernel"):
        match(tree, shapes["params"], "other.npz")


def test_bfloat16_keeps_what_needs_precision_in_float32() -> None:
    """Parameters, LayerNorm's statistics, softmax and logits are float32; the blocks are not."""
    model = small("bfloat16", 64)
    variables, images = drawn(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(models.shapes(model, (SIDE, SIDE, 3)))} == {jnp.dtype("float32")}
    exact = logits(small("float32", 64), variables, images)
    found = logits(model, variables, images)
    assert found.dtype == jnp.float32
    assert 0 < float(jnp.abs(found - exact).max()) < 0.03 * float(jnp.abs(exact).max())
    features = jax.eval_shape(lambda *args: parity.features(model, *args), variables, images)
    assert features["embedding"].dtype == features["Transformer/encoderblock_1"].dtype == jnp.bfloat16
    program = str(jax.make_jaxpr(model.apply)(variables, images))
    assert re.search(r":f32\[[^=]*= exp ", program) and re.search(r":f32\[[^=]*= rsqrt ", program)
    assert not re.search(r":bf16\[[^=]*= (exp|rsqrt|reduce_sum)\b", program)


@pytest.mark.parametrize("dtype", models.DTYPES)
def test_folding_changes_no_logit(dtype: str) -> None:
    """A frozen teacher keeps its kernels in the dtype they are used in; the head and the rest stay float32."""
    model = small(dtype)
    variables, images = drawn(model)
    folded, frozen = model.fold(variables)
    assert frozen.keys() == {"params"}
    for path, leaf in flatten(frozen["params"]).items():
        cast = path.endswith("/kernel") and path != "head/kernel"
        assert leaf.dtype == (jnp.dtype(dtype) if cast else jnp.dtype("float32")), path
    np.testing.assert_array_equal(logits(folded, frozen, images), logits(model, variables, images))

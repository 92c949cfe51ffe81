"""Names of published BiT files: every array ends where the network uses it, and nothing is lost on the way."""

from __future__ import annotations

import functools

import big_transfer
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_lib import models, weights
from distill_lib.errors import DistillError
from distill_lib.teachers import bit_names

Flat = dict[str, np.ndarray]


def bit_params(name: str, classes: int) -> Flat:
    """Flat parameters of a BiT network, drawn by NumPy."""
    expected = weights.flatten(models.shapes(models.create(name, classes), (32, 32, 3))["params"])
    numbers = np.random.default_rng(0)
    return {path: numbers.normal(0.1, 1, leaf.shape).astype(np.float32) for path, leaf in expected.items()}


@pytest.fixture(scope="module")
def params() -> Flat:
    return bit_params("bit_r11w8", 5)


def assert_same(first: Flat, second: Flat) -> None:
    """Equal names, shapes, dtypes and bits."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert (value.shape, value.dtype, value.tobytes()) == (
            second[name].shape,
            second[name].dtype,
            second[name].tobytes(),
        ), name


@st.composite
def networks(draw: st.DrawFn) -> Flat:
    """BiT parameters of any depth and width, and names that BiT has not."""
    channels, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    flat: Flat = {"root_block/conv_root/kernel": np.zeros((2, 2, 1, channels))}
    norms = ["norm-pre-head"]
    for block, units in enumerate(draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)), 1):
        for unit in range(1, units + 1):
            at = f"block{block}/unit{unit:02d}"
            convolutions = ["conv1", "conv2", "conv3"] + ["conv_proj"] * draw(st.booleans())
            flat |= {f"{at}/{name}/kernel": np.zeros((1, 1, channels, channels)) for name in convolutions}
            norms += [f"{at}/gn{number}" for number in (1, 2, 3)]
    flat |= {f"{norm}/{kind}": np.zeros((1, 1, 1, channels)) for norm in norms for kind in ("scale", "bias")}
    flat |= {"head/kernel": np.zeros((channels, classes)), "head/bias": np.zeros(classes)}
    flat |= {name: np.zeros(2) for name in draw(st.sets(st.sampled_from(["step", "extra/kernel", "block1/x"])))}
    numbers = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    return {name: numbers.normal(size=value.shape).astype(dtype) for name, value in flat.items()}


@given(networks())
def test_renaming_there_and_back_changes_no_bit(flat: Flat) -> None:
    """In both directions, for any depth; one array never takes another's name."""
    theirs = big_transfer.renamed(flat)
    assert len(theirs) == len(flat)
    assert_same(bit_names.to_ours(theirs), flat)
    assert_same(big_transfer.renamed(bit_names.to_ours(theirs)), theirs)
    assert_same(bit_names.to_ours(flat), flat)


def big_transfer_names(stages: tuple[int, ...], width: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a big_transfer file, written out from its published loader, not from our renaming."""
    found: dict[str, tuple[int, ...]] = {"resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, width)}
    channels = width
    for block, units in enumerate(stages, 1):
        middle = width * 2 ** (block - 1)
        for unit in range(1, units + 1):
            at = f"resnet/block{block}/unit{unit:02d}"
            found[f"{at}/a/standardized_conv2d/kernel"] = (1, 1, channels, middle)
            found[f"{at}/b/standardized_conv2d/kernel"] = (3, 3, middle, middle)
            found[f"{at}/c/standardized_conv2d/kernel"] = (1, 1, middle, 4 * middle)
            if unit == 1:
                found[f"{at}/a/proj/standardized_conv2d/kernel"] = (1, 1, channels, 4 * middle)
            for part, size in (("a", channels), ("b", middle), ("c", middle)):
                found |= {f"{at}/{part}/group_norm/{kind}": (size,) for kind in ("gamma", "beta")}
            channels = 4 * middle
    found |= {f"resnet/group_norm/{kind}": (channels,) for kind in ("gamma", "beta")}
    return found | {"resnet/head/conv2d/kernel": (1, 1, channels, classes), "resnet/head/conv2d/bias": (classes,)}


@pytest.mark.parametrize(("name", "stages"), [("bit_r50x1", (3, 4, 6, 3)), ("bit_r152x2", (3, 8, 36, 3))])
def test_published_names_fit_the_paper_models(name: str, stages: tuple[int, ...]) -> None:
    """The paper's student and teacher: all names and shapes, none left over."""
    shapes = big_transfer_names(stages, 64 * int(name[-1]), 1000)
    file = {path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()}  # takes no memory
    expected = models.shapes(models.create(name, 1000), (224, 224, 3))["params"]
    ours = bit_names.to_ours(file)
    weights.match(weights.unflatten(ours), expected, name)
    assert {path: value.shape for path, value in big_transfer.renamed(ours).items()} == shapes


def reference_unit(flat: Flat, at: str, x: np.ndarray, groups: int) -> np.ndarray:
    """One unit of stride 1 by the big_transfer names: each part normalises, rectifies and convolves."""

    def part(letter: str, x: np.ndarray) -> np.ndarray:
        split = x.reshape(*x.shape[:3], groups, -1)
        mean, variance = split.mean((1, 2, 4), keepdims=True), split.var((1, 2, 4), keepdims=True)
        normal = ((split - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
        gamma, beta = (flat[f"{at}/{letter}/group_norm/{kind}"] for kind in ("gamma", "beta"))
        return np.maximum(normal * gamma[None, None, None] + beta[None, None, None], 0)

    def convolve(name: str, x: np.ndarray) -> np.ndarray:
        kernel = flat[f"{at}/{name}/standardized_conv2d/kernel"].astype(np.float64)
        kernel = (kernel - kernel.mean((0, 1, 2))[None, None, None]) / kernel.std((0, 1, 2))[None, None, None]
        pad = kernel.shape[0] // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
        return np.einsum("bhwckl,klcf->bhwf", windows, kernel)

    first = part("a", x)
    shortcut = convolve("a/proj", first)
    y = convolve("b", part("b", convolve("a", first)))
    return shortcut + convolve("c", part("c", y))


def test_each_normalisation_stands_before_the_convolution_of_its_letter(params: Flat) -> None:
    """Shapes alone would let gn2 and gn3 change places, or the shortcut start from the raw input; numbers do not."""
    model = models.create("bit_r11w8", 5)
    theirs = big_transfer.renamed(params)
    variables = {"params": weights.unflatten(bit_names.to_ours(theirs))}
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(functools.partial(parity.features, model))(variables, jnp.asarray(images))
    expected = reference_unit(theirs, "resnet/block1/unit01", np.asarray(found["root_block"], np.float64), 8)
    np.testing.assert_allclose(found["block1/unit01"], expected, rtol=1e-4, atol=1e-4)


def test_flat_norms_and_numbered_convolutions_are_read_too(params: Flat) -> None:
    """Newer files keep GroupNorm as (C,); some older ones number their convolutions."""
    squeezed = {name: value.reshape(-1) if value.shape[:3] == (1, 1, 1) else value for name, value in params.items()}
    assert_same(bit_names.to_ours(squeezed), params)
    theirs = big_transfer.renamed(params)
    numbered = {
        name.replace("/proj/standardized_conv2d/", "/proj/standardized_conv2d_7/"): theirs[name] for name in theirs
    }
    assert numbered.keys() != theirs.keys()
    assert_same(bit_names.to_ours(numbered), params)


def test_two_arrays_for_one_parameter_are_refused(params: Flat) -> None:
    """Taking either would be a guess."""
    theirs = big_transfer.renamed(params)
    twice = theirs | {"resnet/root_block/standardized_conv2d_1/kernel": np.zeros(3)}
    with pytest.raises(DistillError, match="both stand for root_block/conv_root/kernel; get the checkpoint again"):
        bit_names.to_ours(twice)


@pytest.mark.parametrize("model", ["vit_ti16", "mobilenet_v3_small_gn"])
def test_other_families_pass_unchanged(model: str) -> None:
    """Their files are in our naming; a LayerNorm (C,) stays (C,)."""
    shapes = weights.flatten(models.shapes(models.create(model, 3), (32, 32, 3))["params"])
    flat = {name: np.broadcast_to(np.float32(0), leaf.shape) for name, leaf in shapes.items()}
    assert {name: value.shape for name, value in bit_names.to_ours(flat).items()} == {
        name: leaf.shape for name, leaf in shapes.items()
    }


def test_unknown_names_are_left_for_the_match(params: Flat) -> None:
    """A surplus array is told, not dropped."""
    surplus = big_transfer.renamed(params) | {"resnet/block1/unit01/d/standardized_conv2d/kernel": np.zeros(1)}
    assert bit_names.to_ours(surplus).keys() - params.keys() == {"resnet/block1/unit01/d/standardized_conv2d/kernel"}


def test_a_head_of_other_classes_becomes_zeros_and_is_told(params: Flat, capsys: pytest.CaptureFixture) -> None:
    """Fine-tuning starts from the body alone; the file's own arrays stay as they are."""
    expected = bit_params("bit_r11w8", 3)
    fitted = bit_names.fit_head(params, expected, "bit.npz", replace=True)
    assert capsys.readouterr().out == "bit.npz has a head of 5 classes; it was replaced by zeros for 3 classes.\n"
    assert fitted["head/kernel"].shape == expected["head/kernel"].shape and fitted["head/bias"].shape == (3,)
    assert not fitted["head/kernel"].any() and not fitted["head/bias"].any()
    with pytest.raises(DistillError, match="bit.npz has a head of 5 classes, the model one of 3; choose a file"):
        bit_names.fit_head(params, expected, "bit.npz", replace=False)
    assert {name for name in params if fitted[name] is not params[name]} == {"head/kernel", "head/bias"}
    assert params["head/bias"].shape == (5,)


def test_a_fitting_head_is_kept(params: Flat, capsys: pytest.CaptureFixture) -> None:
    assert_same(bit_names.fit_head(params, params, "bit.npz", replace=True), params)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        {"head/kernel": np.zeros((7, 5))},
        {"head/bias": np.zeros(4)},
        {"head/bias": np.zeros((4, 1))},
        {"block1/unit01/gn1/scale": np.zeros(3)},
    ],
)
def test_what_is_wrong_in_other_ways_is_never_replaced(params: Flat, wrong: Flat) -> None:
    """Zeros would hide a file of another model."""
    broken = params | wrong
    for classes in (5, 3):
        fitted = bit_names.fit_head(broken, bit_params("bit_r11w8", classes), "bit.npz", replace=True)
        (name,) = wrong
        assert fitted[name] is wrong[name]


def test_a_missing_head_is_left_for_the_match(params: Flat) -> None:
    body = {name: value for name, value in params.items() if not name.startswith("head/")}
    assert bit_names.fit_head(body, params, "bit.npz", replace=True) == body
    assert_same(bit_names.fit_head(params, body, "bit.npz", replace=True), params)

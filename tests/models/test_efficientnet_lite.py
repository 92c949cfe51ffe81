"""EfficientNet-Lite0; timm's numbers are in test_golden.py, and layers are tested with MobileNet v3."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import seeded

from distill_lib import models, weights
from distill_lib.models import mobilenets
from distill_lib.models.mobile_layers import Row

SEED = 5
SIDE = 32


@pytest.fixture
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with the stem, the head and three blocks, so that nothing takes long to compile."""
    widths = ((3, 32, 16, 1), (5, 96, 24, 2), (5, 144, 24, 1))  # kernel, expanded, out, stride
    rows = [Row(size, expanded, features, False, "relu6", stride) for size, expanded, features, stride in widths]
    monkeypatch.setitem(mobilenets.ROWS, mobilenets.LITE, rows)
    monkeypatch.setattr(mobilenets, "LITE_LAST", 64)


def drawn(model) -> tuple[dict, np.ndarray]:
    """Variables and four images out of a seed."""
    return seeded.variables(models.shapes(model, (SIDE, SIDE, 3)), SEED), seeded.images(SEED, 4, SIDE)


def worst(found, expected) -> float:
    """Largest difference, relative to the largest expected number."""
    return float(np.abs(np.asarray(found, np.float32) - expected).max() / np.abs(expected).max())


def test_published_size() -> None:
    """4.65 M parameters at 1,000 classes, in float32, and two statistics for each channel that is normalised."""
    shapes = models.shapes(models.create("efficientnet_lite0", 1000), (224, 224, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 4_652_008
    channels = [leaf.size for name, leaf in weights.flatten(shapes["params"]).items() if name.endswith("/scale")]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["batch_stats"])) == 2 * sum(channels)


def test_blocks() -> None:
    """16 blocks in 7 stages; only the first block of a stage has a stride, and expands from the stage before."""
    stages = mobilenets.stages(mobilenets.LITE)
    assert [len(rows) for rows in stages] == [1, 2, 2, 3, 3, 4, 1]
    assert [row.stride for rows in stages for row in rows] == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert [(row.expanded, row.features) for row in stages[1]] == [(96, 24), (144, 24)]
    assert not any(row.squeeze for rows in stages for row in rows)


@pytest.mark.usefixtures("few_blocks")
def test_training_changes_all_statistics_by_a_hundredth() -> None:
    """Running statistics move by 1 % of the difference, as this family was trained; inference leaves them."""
    model = models.create("efficientnet_lite0", 10)
    variables, images = drawn(model)
    _, changed = jax.jit(lambda v, x: models.train_logits(model, v, x))(variables, images)
    before, after = (weights.flatten(tree["batch_stats"]) for tree in (variables, changed))
    assert before.keys() == after.keys()
    assert all((after[name] != before[name]).any() for name in before)
    # "SAME" padding of a stride of 2 puts nothing above and left, and one row and column below and right
    padded = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
    steps = range(0, SIDE, 2)
    windows = np.array([[padded[:, i : i + 3, j : j + 3] for j in steps] for i in steps])
    outputs = np.einsum("rcbhwi,hwio->brco", windows, variables["params"]["stem"]["conv"]["kernel"])
    for kind, now in (("mean", outputs.mean(axis=(0, 1, 2))), ("var", outputs.var(axis=(0, 1, 2)))):
        expected = 0.99 * before[f"stem/norm/{kind}"] + 0.01 * now
        np.testing.assert_allclose(after[f"stem/norm/{kind}"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fold(dtype: str) -> None:
    """A frozen network without BatchNorm gives the same logits; kernels are kept in the dtype they are used in."""
    model = models.create("efficientnet_lite0", 10, dtype)
    variables, images = drawn(model)
    folded, small = model.fold(variables)
    assert list(small) == ["params"]
    for name, value in weights.flatten(small["params"]).items():
        assert "/norm/" not in name
        assert value.dtype == (dtype if name.endswith("conv/kernel") else "float32"), name
    expected = np.asarray(models.logits(model, variables, images))
    assert worst(models.logits(folded, small, images), expected) < (1e-5 if dtype == "float32" else 0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("few_blocks")
def test_bfloat16() -> None:
    """Activations in half precision, parameters and logits not; logits differ by less than 5 % of the largest."""
    exact, half = (models.create("efficientnet_lite0", 10, dtype) for dtype in ("float32", "bfloat16"))
    variables, images = drawn(exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(models.shapes(half, (SIDE, SIDE, 3)))} == {jnp.dtype(jnp.float32)}
    features = parity.features(half, variables, images)
    assert {features[name].dtype for name in ("stem", "stage1", "stage2", "last")} == {jnp.dtype(jnp.bfloat16)}
    assert features["head"].dtype == jnp.float32
    assert 1e-5 < worst(features["head"], np.asarray(models.logits(exact, variables, images))) < 0.05


def test_a_new_network_says_nothing() -> None:
    """The head starts at zero: all classes are equally likely, whatever the image."""
    model = models.create("efficientnet_lite0", 10)
    head = jax.jit(lambda key: model.init(key, jnp.zeros((1, SIDE, SIDE, 3)))["params"]["head"])(jax.random.key(0))
    assert not head["kernel"].any() and not head["bias"].any()

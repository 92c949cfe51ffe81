"""The ImageNet teacher: published names and layouts to ours, what the file holds, and that it knows what it sees."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from golden import convert_lite0

from distill_lib import figures, models, teachers, weights
from distill_lib.datasets import package_images
from distill_lib.errors import DistillError

FILE = teachers.EMBEDDED["imagenet_lite0"]
# (input channels, expansion, kernel size, output channels) of the 16 published blocks
BLOCKS = [
    (32, 1, 3, 16),
    *[(16, 6, 3, 24), (24, 6, 3, 24)],
    *[(24, 6, 5, 40), (40, 6, 5, 40)],
    *[(40, 6, 3, 80), (80, 6, 3, 80), (80, 6, 3, 80)],
    *[(80, 6, 5, 112), (112, 6, 5, 112), (112, 6, 5, 112)],
    *[(112, 6, 5, 192), (192, 6, 5, 192), (192, 6, 5, 192), (192, 6, 5, 192)],
    (192, 6, 3, 320),
]
# ILSVRC 2012's classes in the order of their WordNet numbers, which is that of all published ImageNet classifiers
ESPRESSO, CATS, MISSILES, PALACE, DAISY = {967}, {281, 282, 285}, {657, 744}, {698}, {985}
PHOTOGRAPHS = {  # classes that are right, and their least probability; measured: about 0.05 more
    "coffee": (ESPRESSO, 0.9),
    "cat": (CATS, 0.85),
    "rocket": (MISSILES, 0.4),
    "palace": (PALACE, 0.2),
    "flower": (DAISY, 0.25),
}


def published() -> dict[str, np.ndarray]:
    """Arrays with the names and shapes of the published file; each starts with a number of its own."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_and_norm(conv: str, norm: str, shape: tuple[int, int, int, int]) -> None:
        shapes[f"{conv}.weight"] = shape
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{kind}"] = shape[:1]
        shapes[f"{norm}.num_batches_tracked"] = ()

    conv_and_norm("_conv_stem", "_bn0", (32, 3, 3, 3))
    for number, (inputs, expansion, size, outputs) in enumerate(BLOCKS):
        at, wide = f"_blocks.{number}.", inputs * expansion
        if expansion > 1:
            conv_and_norm(f"{at}_expand_conv", f"{at}_bn0", (wide, inputs, 1, 1))
        conv_and_norm(f"{at}_depthwise_conv", f"{at}_bn1", (wide, 1, size, size))
        conv_and_norm(f"{at}_project_conv", f"{at}_bn2", (outputs, wide, 1, 1))
    conv_and_norm("_conv_head", "_bn1", (1280, 320, 1, 1))
    shapes |= {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    arrays = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 7 for name, shape in shapes.items()}
    for number, array in enumerate(arrays.values()):
        array.flat[0] = number
    return arrays


def fake_torch(load: Callable) -> SimpleNamespace:
    """A stand-in for PyTorch that reads what `load` returns."""
    return SimpleNamespace(load=load)


def test_every_published_array_has_its_place() -> None:
    """Each is used once, nothing is left over, and kernels are turned from (out, in, h, w) to (h, w, in, out)."""
    state = published()
    found = convert_lite0.variables(state, "a file")
    params, statistics = found["params"], found["batch_stats"]
    expected = {array.flat[0] for name, array in state.items() if not name.endswith("num_batches_tracked")}
    assert {leaf.flat[0] for leaf in jax.tree.leaves(found)} == expected
    for ours, theirs in {
        "stem/conv/kernel": state["_conv_stem.weight"].transpose(2, 3, 1, 0),
        "stage1/block1/depthwise/norm/scale": state["_blocks.0._bn1.weight"],
        "stage2/block1/expand/conv/kernel": state["_blocks.1._expand_conv.weight"][:, :, 0, 0].T[None, None],
        "stage3/block2/depthwise/conv/kernel": state["_blocks.4._depthwise_conv.weight"][:, 0].transpose(1, 2, 0)[
            :, :, None
        ],
        "stage7/block1/project/norm/bias": state["_blocks.15._bn2.bias"],
        "last/norm/scale": state["_bn1.weight"],
        "head/kernel": state["_fc.weight"].T,
        "head/bias": state["_fc.bias"],
    }.items():
        np.testing.assert_array_equal(weights.flatten(params)[ours], theirs)
    np.testing.assert_array_equal(statistics["stem"]["norm"]["mean"], state["_bn0.running_mean"])
    np.testing.assert_array_equal(statistics["last"]["norm"]["var"], state["_bn1.running_var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("_fc.bias"), "missing params/head/bias"),
        (lambda state: state.update({"_se.weight": np.zeros(3)}), "'_se.weight'.*PyPI"),
        (lambda state: state.update({"_blocks.16._bn0.bias": np.zeros(3)}), "'_blocks.16._bn0.bias'.*PyPI"),
        (lambda state: state.update({"_fc.bias": np.zeros(10)}), "head/bias has shape"),
    ],
)
def test_another_network_is_refused(change: Callable, message: str) -> None:
    """One line that names the array."""
    state = published()
    change(state)
    with pytest.raises(DistillError, match=message) as caught:
        convert_lite0.variables(state, "a file")
    assert "a file" in str(caught.value) and "\n" not in str(caught.value)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file of weights to an .npz: parameters in half precision, statistics not; no code of the file is run."""
    source, target = tmp_path / "weights.pth", tmp_path / "teacher.npz"
    source.write_bytes(b"weights")
    asked = {}

    def load(path: str, **options) -> dict:
        asked.update(options)
        return {name: SimpleNamespace(numpy=lambda value=value: value) for name, value in published().items()}

    monkeypatch.setitem(sys.modules, "torch", fake_torch(load))
    assert convert_lite0.main([str(source), str(target)]) == 0
    assert asked["weights_only"] is True
    assert capsys.readouterr().out.splitlines() == [
        f"{target}: {target.stat().st_size / 1e6:.2f} MB, SHA-256 {weights.sha256(target)}"
    ]
    assert weights.load_metadata(target) == convert_lite0.METADATA | {"source_sha256": weights.sha256(source)}
    tree = weights.load_npz(target)
    assert {leaf.dtype for leaf in jax.tree.leaves(tree.pop("batch_stats"))} == {np.dtype(np.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype(np.float16)}
    np.testing.assert_array_equal(tree["head"]["bias"], published()["_fc.bias"])


def refuse(*_, **__) -> None:
    """What PyTorch says of a file that would run code."""
    raise ValueError("Weights only load failed.\nThis file can still be loaded ...")


@pytest.mark.parametrize(
    ("torch", "content", "message"),
    [
        (None, b"weights", "PyTorch, which is not installed: `pip install torch`"),
        (fake_torch(refuse), None, "no file at .*weights.pth; get efficientnet-lite0"),
        (fake_torch(refuse), b"weights", "weights.pth is not a PyTorch file of weights; get efficientnet-lite0"),
        (fake_torch(lambda *_, **__: ["a list"]), b"weights", "is not a PyTorch file of weights"),
    ],
)
def test_what_goes_wrong_is_one_line(
    torch: SimpleNamespace | None,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says what to do, and nothing is written."""
    monkeypatch.setitem(sys.modules, "torch", torch)
    source, target = tmp_path / "weights.pth", tmp_path / "teacher.npz"
    if content is not None:
        source.write_bytes(content)
    assert convert_lite0.main([str(source), str(target)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and re.search(message, line)
    assert not target.exists()


def test_the_embedded_file() -> None:
    """Small enough to come along, and it says what it is, what it wants to see, and whose it is."""
    assert FILE.stat().st_size < 10e6
    facts = weights.load_metadata(FILE)
    assert {name: facts[name] for name in convert_lite0.METADATA} == convert_lite0.METADATA
    assert facts["source_sha256"].startswith("57934424")  # the published file's name ends with the start of its SHA-256
    low, high = facts["input_range"]
    pixels = np.array([0, 127, 255]) / 127.5 - 1
    np.testing.assert_allclose(low + (pixels + 1) / 2 * (high - low), (np.array([0, 127, 255]) - 127) / 128, atol=1e-12)
    variables = weights.unpack(weights.load_npz(FILE))
    model = models.create(facts["model"], convert_lite0.NUM_CLASSES)
    weights.match(variables, models.shapes(model, (224, 224, 3)), "the embedded file")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@pytest.mark.slow
def test_it_knows_what_photographs_show() -> None:
    """A cup of coffee, a cat, a rocket, a palace and a flower, as scikit-image and scikit-learn ship them.

    This is what parity on random weights cannot show: that names, layouts, colours and the range of pixels are right.
    """
    teacher = teachers.load("imagenet_lite0", num_classes=1000, channels=3, resolution=128)
    (member,) = teacher.ensemble.members
    assert member.resolution == 224 and member.input_range == pytest.approx(((0 - 127) / 128, 1.0))
    found = figures.photographs.probabilities(teacher)
    assert list(package_images.FILES) == list(PHOTOGRAPHS)
    for name, probabilities in zip(PHOTOGRAPHS, found, strict=True):
        right, least = PHOTOGRAPHS[name]
        assert int(probabilities.argmax()) in right, name
        assert probabilities[list(right)].sum() > least, name

"""Exported networks: what other programs read gives the library's logits, and says what it is."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from distill_lib import export, models, records, teachers, weights
from distill_lib.errors import DistillError
from distill_lib.models import bit, vit
from distill_lib.teachers import published

pytest.importorskip("safetensors", reason="the extra distill_lib[export] is not installed")
pytest.importorskip("flatbuffers", reason="the extra distill_lib[export] is not installed")
import safetensors.numpy

pytestmark = pytest.mark.usefixtures("tiny_models")


def images(count: int, *shape: int) -> np.ndarray:
    """Noise in [-1, 1]."""
    return np.random.default_rng(count).uniform(-1, 1, (count, *shape)).astype(np.float32)


def sound_variables(name: str, shape: tuple[int, int, int]) -> models.Variables:
    """Random ones of a network for ten classes, that keep its activations of order one."""
    numbers = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        values = numbers.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        return (values if leaf.ndim > 1 else 0.5 + np.abs(values)).astype(np.float32)

    return jax.tree.map(draw, models.shapes(models.create(name, 10), shape))


def metadata(path: Path) -> dict:
    """Of a file of safetensors."""
    with safetensors.safe_open(path, "numpy") as file:
        return dict(file.metadata())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a made-up run: a student, and the record beside it."""
    folder = tmp_path / "run"
    facts = {"model": tiny.STUDENT, "input_range": [0.0, 1.0]}
    weights.save_npz(folder / "student.npz", tiny.random_params(tiny.STUDENT, 10), facts)
    recipe = tiny.recipe("mock")
    teacher = {"name": "mock", "sha256": "mock"}
    record = {"run_id": "r", "study": recipe.study, "mock": True, "recipe": dataclasses.asdict(recipe), "result": {}}
    record |= {"teacher": teacher, "steps": 1, "wall_seconds": 1.0} | records.environment()
    records.write(folder, record, [{"step": 1, "loss": 1.0}])
    return folder


def test_stablehlo_gives_the_logits_for_any_number_of_images(run: Path) -> None:
    """To 1e-5, whatever range of values the network itself wants; and it can be lowered for other devices."""
    path = export.export(run, "stablehlo")
    assert path == run / "student.stablehlo"
    network = jax.export.deserialize(bytearray(path.read_bytes()))
    teacher = teachers.load(str(run / "student.npz"), num_classes=10, channels=1, resolution=8)
    for count in (1, 5):
        shown = images(count, 8, 8, 1)
        expected = np.asarray(teacher.logits(shown))
        np.testing.assert_allclose(network.call(shown), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert network.platforms == ("cpu", "cuda", "tpu")
    about = json.loads(path.with_name("student.stablehlo.json").read_text())
    assert about["image_shape"] == [8, 8, 1] and about["num_classes"] == 10 and about["model"] == tiny.STUDENT


@pytest.mark.filterwarnings("ignore")  # of the converter
@pytest.mark.parametrize(
    "name",
    [
        tiny.STUDENT,
        "vit_ti16",
        *(pytest.param(f"mobilenet_v3_small_{norm}", marks=pytest.mark.slow) for norm in ("bn", "gn")),
    ],
)
def test_onnx_gives_the_logits_for_any_number_of_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every family, to 1e-4, in ONNX Runtime; and the file says what it is."""
    pytest.importorskip("jax2onnx", reason="the extra distill_lib[onnx] is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    monkeypatch.setattr(vit, "WIDTHS", {"vit_ti16": 64})
    side, channels = (8, 1) if name == tiny.STUDENT else (32, 3)
    path = tmp_path / "network.npz"
    variables = sound_variables(name, (side, side, channels))
    weights.save_npz(path, weights.pack(variables), {"model": name, "resolution": side, "input_range": [0.0, 1.0]})
    with jax.numpy_rank_promotion("allow"):  # in Flax
        exported = export.export(path, "onnx", tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(exported)
    teacher = teachers.load(str(path), num_classes=10, channels=channels, resolution=side)
    for count in (1, 3):
        shown = images(count, side, side, channels)
        (logits,), expected = session.run(None, {"images": shown}), np.asarray(teacher.logits(shown))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        assert np.abs(expected - expected.mean()).max() > 1e-3
    about = session.get_modelmeta().custom_metadata_map
    assert about["model"] == name and json.loads(about["input_range"]) == [-1.0, 1.0]
    assert json.loads(about["image_shape"]) == [side, side, channels] and about["sha256"] == weights.sha256(path)


def test_safetensors_hold_the_weights_and_what_they_are(run: Path, tmp_path: Path) -> None:
    """In this library's names, for a network that timm does not have."""
    path = export.export(run / "student.npz", "safetensors", tmp_path / "out" / "mine.safetensors")
    held = safetensors.numpy.load_file(path)
    for name, value in weights.flatten(weights.load_npz(run / "student.npz")).items():
        np.testing.assert_array_equal(held.pop(name), value)
    assert not held
    about = metadata(path)
    assert about["model"] == tiny.STUDENT and "timm" not in about and about["run_id"] == "r"
    assert json.loads(about["input_range"]) == [0.0, 1.0] and json.loads(about["image_shape"]) == [8, 8, 1]
    assert json.loads(about["class_names"])[9] == "Ankle boot"
    assert json.loads(about["teacher"])["name"] == "mock" and json.loads(about["mock"]) is True
    assert about["sha256"] == weights.sha256(run / "student.npz")


def as_published(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """An array of timm's by its name in the published files: the rule of timm's own loader, the other way round."""
    value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    unit = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(?:conv|norm)(\d)\.(weight|bias)", name)
    if unit:
        stage, block, part, kind = int(unit[1]) + 1, int(unit[2]) + 1, "abc"[int(unit[3]) - 1], unit[4]
        end = (
            "standardized_conv2d/kernel" if "conv" in name else f"group_norm/{'gamma' if kind == 'weight' else 'beta'}"
        )
        return f"resnet/block{stage}/unit{block:02d}/{part}/{end}", value
    if shortcut := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.downsample\.conv\.weight", name):
        stage, block = int(shortcut[1]) + 1, int(shortcut[2]) + 1
        return f"resnet/block{stage}/unit{block:02d}/a/proj/standardized_conv2d/kernel", value
    top = {"stem.conv.weight": "root_block/standardized_conv2d/kernel"}
    top |= {"norm.weight": "group_norm/gamma", "norm.bias": "group_norm/beta"}
    top |= {"head.fc.weight": "head/conv2d/kernel", "head.fc.bias": "head/conv2d/bias"}
    return f"resnet/{top[name]}", value


def test_a_network_that_timm_has_is_in_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back by way of the published files' names, it gives the very logits."""
    monkeypatch.setattr(bit, "STAGES", {50: (2, 1)})
    path = tmp_path / "student.npz"
    weights.save_npz(path, tiny.random_params("bit_r50x1", 3, channels=3), {"model": "bit_r50x1", "resolution": 16})
    exported = export.export(path, "safetensors", tmp_path / "x.safetensors")
    assert metadata(exported)["timm"] == "resnetv2_50x1_bit"
    theirs = safetensors.numpy.load_file(exported)
    assert theirs["head.fc.weight"].shape == (3, 512, 1, 1) and theirs["stem.conv.weight"].shape == (64, 3, 7, 7)
    np.savez(tmp_path / "theirs.npz", **dict(as_published(name, value) for name, value in theirs.items()))
    model, shown = models.create("bit_r50x1", 3), images(2, 16, 16, 3)
    read = published.load(tmp_path / "theirs.npz", model, (16, 16, 3))
    own = published.load(path, model, (16, 16, 3))
    ours, again = (np.asarray(models.logits(model, tree, shown)) for tree in (own, read))
    np.testing.assert_allclose(again, ours, rtol=1e-5)


def test_what_cannot_be_exported_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another format, a size that nobody knows, a file without a head, an extra that is not installed."""
    (tmp_path / "alone.npz").write_bytes((run / "student.npz").read_bytes())
    weights.save_npz(tmp_path / "headless.npz", {"a": np.zeros(1)}, {"model": tiny.STUDENT, "resolution": 8})
    pruned = {"model": tiny.STUDENT, "resolution": 8, "compression": "2:4"}
    weights.save_npz(tmp_path / "pruned.npz", tiny.random_params(tiny.STUDENT, 10), pruned)
    for network, to, message in (
        (run, "torch", "unknown format 'torch'.*Valid: safetensors, onnx, stablehlo"),
        (tmp_path / "alone.npz", "stablehlo", r"does not say how large its images are: .* \(--resolution\)"),
        (tmp_path / "headless.npz", "stablehlo", "has no head"),
        (tmp_path / "pruned.npz", "safetensors", "is used as 2:4, which this format cannot say: export it to onnx"),
        (tmp_path, "stablehlo", "no checkpoint at"),
    ):
        with pytest.raises(DistillError, match=message):
            export.export(network, to)
    for to, package, extra in (("stablehlo", "flatbuffers", "export"), ("onnx", "jax2onnx", "onnx")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DistillError, match=rf"{to} needs {package}: pip install 'distill_lib\[{extra}\]'"):
            export.export(run, to)

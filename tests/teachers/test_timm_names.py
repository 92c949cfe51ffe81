"""Networks in timm's names: what comes in is what timm computes, what goes out is what timm reads.

The scripts that made the golden files gave timm its weights, with names that it accepted; here they are the judges, so
that a network that is read back from these names gives the golden logits of timm.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import seeded

from distill_lib import export, models, teachers, weights
from distill_lib.errors import DistillError
from distill_lib.models import vit
from distill_lib.teachers import published, timm_names
from distill_lib.teachers.teacher import facts_of

pytest.importorskip("safetensors", reason="the extra distill_lib[export] is not installed")
import safetensors.numpy

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("mobilenet_v3_small_bn", "mobilenet_v3_large_bn", "efficientnet_lite0", "vit_ti16")
SIDE = 32


@pytest.fixture
def makers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripts, with NumPy in the place of PyTorch."""
    torch = types.SimpleNamespace(from_numpy=np.array, tensor=np.array)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.syspath_prepend(GOLDEN)
    return lambda name: importlib.import_module(f"make_{name}")


def variables_of(name: str) -> models.Variables:
    """Seeded variables of a network for ten classes."""
    return seeded.variables(models.shapes(models.create(name, 10), (SIDE, SIDE, 3)), 0)


def in_timm(name: str, variables: models.Variables, makers: Any) -> dict[str, np.ndarray]:
    """As the script of its golden file hands them to timm."""
    if name.startswith("vit"):
        return makers("vit").state_dict(variables["params"])
    mobile, outside = makers("mobilenet_v3"), {"stem/conv": "conv_stem", "stem/norm": "bn1", "head": "classifier"}
    if name == "efficientnet_lite0":
        return mobile.state_dict(variables, makers("efficientnet_lite").OUTSIDE)
    last = f"blocks.{len(variables['params']) - 4}.0"
    outside |= {"last/conv": f"{last}.conv", "last/norm": f"{last}.bn1", "hidden": "conv_head"}
    return mobile.state_dict(variables, outside)


def written(folder: Path, theirs: dict[str, np.ndarray], **config: Any) -> Path:
    """A file of timm's, and what it says beside it."""
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(value) for name, value in theirs.items()}, folder / "m.safetensors"
    )
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / "m.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_networks_come_in_and_go_out_under_the_names_that_timm_accepted(name: str, tmp_path: Path, makers: Any) -> None:
    """Bit by bit, both ways."""
    variables = variables_of(name)
    theirs = in_timm(name, variables, makers)
    flat = weights.flatten(weights.pack(variables))
    out = timm_names.to_timm(flat)
    assert out.keys() == {each for each in theirs if not each.endswith("num_batches_tracked")}
    for each, value in out.items():
        np.testing.assert_array_equal(value, theirs[each], err_msg=each)
    read = published.load(written(tmp_path, theirs), models.create(name, 10), (SIDE, SIDE, 3))
    assert weights.flatten(weights.pack(read)).keys() == flat.keys()
    for each, value in weights.flatten(weights.pack(read)).items():
        np.testing.assert_array_equal(value, flat[each], err_msg=each)


def test_a_teacher_of_timm_is_shown_what_it_was_trained_on(tmp_path: Path, makers: Any) -> None:
    """In the range of each channel, that config.json tells by mean and deviation."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    variables = variables_of("vit_ti16")
    about = {"input_size": [3, SIDE, SIDE], "mean": mean.tolist(), "std": std.tolist()}
    path = written(
        tmp_path, in_timm("vit_ti16", variables, makers), architecture="vit_tiny_patch16_224", pretrained_cfg=about
    )
    teacher = teachers.load(str(path), num_classes=10, channels=3, resolution=SIDE)
    shown = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    normal = ((shown / 2 + 0.5 - mean) / std).astype(np.float32)
    with jax.numpy_rank_promotion("allow"):  # in Flax
        expected, logits = models.logits(models.create("vit_ti16", 10), variables, normal), teacher.logits(shown)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert teacher.ensemble.members[0].resolution == SIDE


def test_a_vision_transformer_for_another_side_has_its_positions_resized(tmp_path: Path, makers: Any) -> None:
    about = {"input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.5] * 3, "architecture": "vit_tiny_patch16_224"}
    path = written(tmp_path, in_timm("vit_ti16", variables_of("vit_ti16"), makers), **about)
    assert facts_of(path) == {
        "model": "vit_ti16",
        "resolution": SIDE,
        "input_range": [-1.0, 1.0],
        "compression": "none",
    }
    read = published.load(path, models.create("vit_ti16", 10), (48, 48, 3))
    assert read["params"]["Transformer"]["posembed_input"]["pos_embedding"].shape == (1, 10, vit.WIDTHS["vit_ti16"])


def test_a_network_of_timm_goes_out_again(tmp_path: Path, makers: Any) -> None:
    """In its own names, or as a program; what it wants to be shown travels along."""
    about = {"input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.25, 0.5, 1.0]}
    theirs = in_timm("vit_ti16", variables_of("vit_ti16"), makers)
    path = written(tmp_path, theirs, architecture="vit_tiny_patch16_224", **about)
    again = safetensors.numpy.load_file(export.export(path, "safetensors", tmp_path / "again.safetensors"))
    assert again.keys() == theirs.keys()
    for name, value in again.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    told = facts_of(tmp_path / "again.safetensors")
    assert told["input_range"] == [[-2.0, -1.0, -0.5], [2.0, 1.0, 0.5]] and told["resolution"] == SIDE


def test_what_cannot_be_read_is_told(tmp_path: Path, makers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = in_timm("vit_ti16", variables_of("vit_ti16"), makers)
    path, model = written(tmp_path, theirs), models.create("vit_ti16", 10)
    with pytest.raises(DistillError, match=r"does not say which network it holds: put timm's config\.json beside it"):
        facts_of(path)
    about = {"input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.5] * 3, "architecture": "resnet50"}
    written(tmp_path, theirs, **about)
    with pytest.raises(
        DistillError, match="unknown network of timm 'resnet50'.*Valid: resnetv2_50x1_bit, .*mobilenetv3"
    ):
        facts_of(path)
    short = {name: value for name, value in theirs.items() if name != "blocks.3.mlp.fc1.bias"}
    with pytest.raises(DistillError, match="missing Transformer/encoderblock_3/MlpBlock_3/Dense_0/bias; surplus other"):
        published.load(written(tmp_path, short | {"other": np.zeros(1)}), model, (SIDE, SIDE, 3))
    with pytest.raises(DistillError, match="norm.bias holds numbers that are not finite"):
        published.load(written(tmp_path, theirs | {"norm.bias": np.full(192, np.nan)}), model, (SIDE, SIDE, 3))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DistillError, match="m.safetensors cannot be read .*; get it again"):
        published.load(path, model, (SIDE, SIDE, 3))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(DistillError, match=r"needs safetensors: pip install 'distill_lib\[export\]'"):
        facts_of(path)


def test_every_name_is_one_of_a_model() -> None:
    assert set(timm_names.NETWORKS) <= set(models.names())
    assert len(set(timm_names.NETWORKS.values())) == len(timm_names.NETWORKS)

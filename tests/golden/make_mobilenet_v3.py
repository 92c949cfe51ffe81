"""Golden outputs of MobileNet v3 by timm; run by hand where PyTorch is: `pip install torch torchvision timm`.

    python tests/golden/make_mobilenet_v3.py

timm has the BatchNorm form only. The GroupNorm form is the same code with another norm, which BiT's files check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import BATCH, NUM_CLASSES, SEED, outputs, write

from distill_lib import models, weights

REFERENCES = {"mobilenet_v3_large_bn": "mobilenetv3_large_100", "mobilenet_v3_small_bn": "mobilenetv3_small_100"}
SIDES = (160, 224)
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# layer -> timm's names of its convolution and norm, in a block with and without expansion
WITH_EXPANSION = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "squeeze": ("se",),
    "project": ("conv_pwl", "bn3"),
}
WITHOUT_EXPANSION = {"depthwise": ("conv_dw", "bn1"), "squeeze": ("se",), "project": ("conv_pw", "bn2")}


def state_dict(variables: dict, outside: dict[str, str]) -> dict[str, Any]:
    """Our variables as timm wants them.

    Args:
        variables: "params" and "batch_stats".
        outside: our name of each layer outside the blocks -> timm's, such as "stem/norm" -> "bn1".

    Returns:
        Tensors by timm's names.
    """
    import torch

    params, stats = (weights.flatten(variables[kind]) for kind in ("params", "batch_stats"))
    found = {}
    for path, value in (params | stats).items():
        layer, _, kind = path.rpartition("/")
        name = outside[layer] if layer in outside else block_layer(layer, params)
        if kind == "kernel" and name == "classifier":
            value = value.T
        elif kind == "kernel":  # timm has 1x1 convolutions where we have dense layers
            value = np.array(value, ndmin=4).transpose(3, 2, 0, 1)
        found[f"{name}.{KINDS[kind]}"] = torch.from_numpy(np.ascontiguousarray(value))
        if kind == "var":
            found[f"{name}.num_batches_tracked"] = torch.tensor(0)
    return found


def block_layer(layer: str, params: dict) -> str:
    """Our name of a layer of a block, such as "stage2/block1/expand/conv", to timm's, here "blocks.1.0.conv_pw"."""
    stage, block, part, what = layer.split("/")
    expands = f"{stage}/{block}/expand/conv/kernel" in params
    names = (WITH_EXPANSION if expands else WITHOUT_EXPANSION)[part]
    inner = {"conv": names[0], "norm": names[-1], "reduce": "se.conv_reduce", "expand": "se.conv_expand"}[what]
    return f"blocks.{int(stage.removeprefix('stage')) - 1}.{int(block.removeprefix('block')) - 1}.{inner}"


def make(name: str, reference: str, outside: dict[str, str], parts: dict[str, str]) -> None:
    """Writes the files of one model; `outside` as for `state_dict`, `parts` as for `common.outputs`."""
    import seeded
    import timm

    shapes = models.shapes(models.create(name, NUM_CLASSES), (64, 64, 3))
    theirs = timm.create_model(reference, num_classes=NUM_CLASSES)
    theirs.load_state_dict(state_dict(seeded.variables(shapes, SEED), outside), strict=True)
    for module in theirs.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # else an activation would overwrite the output of the layer before it
    for side in SIDES:
        logits, features = outputs(theirs, seeded.images(SEED, BATCH, side), parts)
        write(name, side, reference=reference, logits=logits, features=features)


def main() -> None:
    """Writes all files."""
    for name, reference in REFERENCES.items():
        stages = len(models.shapes(models.create(name, 1), (64, 64, 3))["params"]) - 4
        outside = {
            "stem/conv": "conv_stem",
            "stem/norm": "bn1",
            "last/conv": f"blocks.{stages}.0.conv",
            "last/norm": f"blocks.{stages}.0.bn1",
            "hidden": "conv_head",
            "head": "classifier",
        }
        parts = {"stem": "bn1", "last": f"blocks.{stages}", "hidden": "conv_head"}
        parts |= {f"stage{number + 1}": f"blocks.{number}" for number in range(stages)}
        make(name, reference, outside, parts)


if __name__ == "__main__":
    main()

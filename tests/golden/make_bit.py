"""Golden outputs of BiT ResNets by timm; run by hand where PyTorch is: `pip install torch torchvision timm`.

python tests/golden/make_bit.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import BATCH, NUM_CLASSES, SEED, outputs, write

from distill_lib import models, weights

REFERENCES = {"bit_r50x1": "resnetv2_50x1_bit", "bit_r152x2": "resnetv2_152x2_bit"}
SIDES = (128, 224)
PARTS = {"root_block": "stem"} | {f"block{i + 1}": f"stages.{i}" for i in range(4)}


def their_name(path: str) -> str:
    """Our name of an array to timm's."""
    words = path.split("/")
    kind = {"kernel": "weight", "scale": "weight", "bias": "bias"}[words.pop()]
    if words == ["root_block", "conv_root"]:
        return f"stem.conv.{kind}"
    if words == ["norm-pre-head"]:
        return f"norm.{kind}"
    if words == ["head"]:
        return f"head.fc.{kind}"
    block, unit, layer = words
    layer = {"gn1": "norm1", "gn2": "norm2", "gn3": "norm3", "conv_proj": "downsample.conv"}.get(layer, layer)
    return f"stages.{int(block[5:]) - 1}.blocks.{int(unit[4:]) - 1}.{layer}.{kind}"


def state_dict(params: dict) -> dict[str, Any]:
    """Our parameters as timm wants them."""
    import torch

    found = {}
    for path, value in weights.flatten(params).items():
        if path == "head/kernel":
            value = value.T[:, :, None, None]
        elif path.endswith("kernel"):
            value = value.transpose(3, 2, 0, 1)
        elif path.endswith(("scale", "bias")):
            value = value.reshape(-1)
        found[their_name(path)] = torch.from_numpy(np.ascontiguousarray(value))
    return found


def main() -> None:
    """Writes all files."""
    import seeded
    import timm

    for name, reference in REFERENCES.items():
        shapes = models.shapes(models.create(name, NUM_CLASSES), (64, 64, 3))
        theirs = timm.create_model(reference, num_classes=NUM_CLASSES)
        theirs.load_state_dict(state_dict(seeded.variables(shapes, SEED)["params"]), strict=True)
        for side in SIDES:
            logits, features = outputs(theirs, seeded.images(SEED, BATCH, side), PARTS)
            write(name, side, reference=reference, logits=logits, features=features)


if __name__ == "__main__":
    main()

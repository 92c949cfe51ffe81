"""Golden outputs of Vision Transformers by timm; run by hand where PyTorch is: `pip install torch torchvision timm`.

python tests/golden/make_vit.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import BATCH, NUM_CLASSES, SEED, outputs, write

from distill_lib import models, weights

REFERENCES = {
    "vit_ti16": "vit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "vit_b16": "vit_base_patch16_224",
}
SIDES = {"vit_ti16": (128, 224), "vit_s16": (224,), "vit_b16": (224,)}
PARTS = {"embedding": "patch_embed.proj", "Transformer/encoder_norm": "norm"} | {
    f"Transformer/encoderblock_{index}": f"blocks.{index}" for index in (0, 5, 11)
}
LAYERS = {
    "LayerNorm_0": "norm1",
    "LayerNorm_2": "norm2",
    "MultiHeadDotProductAttention_1/out": "attn.proj",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
}


def block(prefix: str, ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One encoder block under timm's names; query, key and value become one matrix, and dense kernels are turned."""
    found = {}
    for path, name in LAYERS.items():
        first = "scale" if path.startswith("LayerNorm") else "kernel"
        bias = ours[f"{path}/bias"]
        weight = ours[f"{path}/{first}"].reshape(-1, len(bias)).T if first == "kernel" else ours[f"{path}/{first}"]
        found |= {f"{prefix}.{name}.weight": weight, f"{prefix}.{name}.bias": bias}
    heads = [f"MultiHeadDotProductAttention_1/{name}" for name in ("query", "key", "value")]
    kernels = [ours[f"{path}/kernel"] for path in heads]
    found[f"{prefix}.attn.qkv.weight"] = np.concatenate([kernel.reshape(len(kernel), -1).T for kernel in kernels])
    found[f"{prefix}.attn.qkv.bias"] = np.concatenate([ours[f"{path}/bias"].reshape(-1) for path in heads])
    return found


def state_dict(params: dict) -> dict[str, Any]:
    """Our parameters as timm wants them."""
    import torch

    encoder = params["Transformer"]
    found = {
        "cls_token": params["cls"],
        "pos_embed": encoder["posembed_input"]["pos_embedding"],
        "patch_embed.proj.weight": params["embedding"]["kernel"].transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": params["embedding"]["bias"],
        "norm.weight": encoder["encoder_norm"]["scale"],
        "norm.bias": encoder["encoder_norm"]["bias"],
        "head.weight": params["head"]["kernel"].T,
        "head.bias": params["head"]["bias"],
    }
    for name, tree in encoder.items():
        if name.startswith("encoderblock_"):
            found |= block(f"blocks.{name.rpartition('_')[2]}", weights.flatten(tree))
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def main() -> None:
    """Writes all files."""
    import seeded
    import timm

    for name, reference in REFERENCES.items():
        for side in SIDES[name]:
            shapes = models.shapes(models.create(name, NUM_CLASSES), (side, side, 3))
            theirs = timm.create_model(reference, num_classes=NUM_CLASSES, img_size=side)
            theirs.load_state_dict(state_dict(seeded.variables(shapes, SEED)["params"]), strict=True)
            logits, features = outputs(theirs, seeded.images(SEED, BATCH, side), PARTS)
            write(name, side, reference=reference, logits=logits, features=features)


if __name__ == "__main__":
    main()

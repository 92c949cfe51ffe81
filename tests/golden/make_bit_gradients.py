"""Golden gradients of a narrow BiT by timm in double precision; run by hand where PyTorch is: `pip install torch timm`.

python tests/golden/make_bit_gradients.py
"""

from __future__ import annotations

import json
from functools import partial
from importlib.metadata import version

import numpy as np
from common import HERE, SEED
from make_bit import their_name

from distill_lib import models, weights


def main() -> None:
    """Writes torch/bit_gradients.npz: of each case the loss, and of each gradient a few numbers and its norm."""
    import gradients
    import torch
    from make_bit import state_dict
    from timm.layers import StdConv2d
    from timm.models.resnetv2 import ResNetV2

    content: dict[str, np.ndarray] = {}
    for case in gradients.CASES:
        variables, images, labels = gradients.drawn(case, SEED)
        theirs = ResNetV2(
            layers=gradients.STAGES,
            channels=[4 * gradients.WIDTH * 2**stage for stage in range(len(gradients.STAGES))],
            num_classes=gradients.CLASSES,
            stem_chs=gradients.WIDTH,
            stem_type="fixed",
            conv_layer=partial(StdConv2d, eps=1e-10),
        )
        theirs.load_state_dict(state_dict(variables["params"]), strict=True)
        theirs = theirs.double().train()
        logits = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double())
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()
        found = {name: value.grad.numpy() for name, value in theirs.named_parameters()}
        rows = {}
        for path, leaf in weights.flatten(models.shapes(gradients.model(), images.shape[1:])["params"]).items():
            gradient = found[their_name(path)]
            if path == "head/kernel":
                gradient = gradient[:, :, 0, 0].T
            elif path.endswith("kernel"):
                gradient = gradient.transpose(2, 3, 1, 0)
            rows[path] = gradients.summary(gradient.reshape(leaf.shape))
        content |= {case: np.stack(list(rows.values())), f"loss of {case}": np.float64(loss.item())}
        print(f"{case}: loss {loss.item():.4g}, {len(rows)} gradients", flush=True)
    versions = {package: version(package) for package in ("torch", "timm", "numpy")}
    path = HERE / "torch" / "bit_gradients.npz"
    content |= {"paths": np.array(list(rows)), "seed": np.int64(SEED), "versions": np.array(json.dumps(versions))}
    np.savez_compressed(path, **content)


if __name__ == "__main__":
    main()

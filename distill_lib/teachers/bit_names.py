"""Names of published BiT parameters, and the head of another number of classes; flat dicts to flat dicts.

This library and big_vision write `block1/unit01/conv1/kernel`; the files of big_transfer, and the paper's ImageNet
files as timm reads them, `resnet/block1/unit01/a/standardized_conv2d/kernel`. There `a`, `b` and `c` each hold a
convolution and the normalisation *before* it, and `a/proj` is the shortcut's convolution.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from distill_lib.errors import DistillError

_PREFIX = "resnet/"
_CONV = "standardized_conv2d/kernel"
_NORM = {"group_norm/gamma": "scale", "group_norm/beta": "bias"}
_LAYERS = {_CONV: "conv{}/kernel"} | {theirs: f"gn{{}}/{ours}" for theirs, ours in _NORM.items()}

# Theirs to ours: inside a unit, and outside.
_UNIT = {f"{part}/{theirs}": ours.format(i) for i, part in enumerate("abc", 1) for theirs, ours in _LAYERS.items()}
_UNIT |= {f"a/proj/{_CONV}": "conv_proj/kernel"}
_TOP = {f"root_block/{_CONV}": "root_block/conv_root/kernel"}
_TOP |= {theirs: f"norm-pre-head/{ours}" for theirs, ours in _NORM.items()}
_TOP |= {f"head/conv2d/{kind}": f"head/{kind}" for kind in ("kernel", "bias")}

_IN_UNIT = re.compile(r"(block\d+/unit\d+/)(.+)")
_NORMS = re.compile(r"(block\d+/unit\d+/gn[123]|norm-pre-head)/(scale|bias)")  # other families have other names


def to_ours(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames and reshapes the parameters of a BiT file, keeping others; DistillError if two would get one name."""
    ours: dict[str, np.ndarray] = {}
    for theirs, value in flat.items():
        name = _our_name(theirs)
        if name in ours:
            raise DistillError(f"{theirs} and another array both stand for {name}; get the checkpoint again.")
        if _NORMS.fullmatch(name) and value.ndim == 1:
            value = value.reshape(1, 1, 1, -1)
        if name != theirs and name == "head/kernel" and value.shape[:2] == (1, 1):
            value = value[0, 0]
        ours[name] = value
    return ours


def fit_head(
    params: Mapping[str, np.ndarray], expected_shapes: Mapping[str, Any], source: str, *, replace: bool
) -> dict[str, np.ndarray]:
    """Replaces a head of another number of classes by zeros, and prints so; DistillError if it is to stay."""
    names = ("head/kernel", "head/bias")
    kernel, bias = (params[name].shape if name in params else () for name in names)
    wanted: list[tuple[int, ...]] = [expected_shapes[name].shape if name in expected_shapes else () for name in names]
    comparable = len(bias) == len(wanted[1]) == 1 and kernel == (*wanted[0][:1], *bias)
    if not comparable or bias == wanted[1]:
        return dict(params)
    told = f"{source} has a head of {bias[0]} classes"
    if not replace:
        raise DistillError(
            f"{told}, the model one of {wanted[1][0]}; choose a file for these classes (`published.load` can start "
            "from a head of zeros: replace_head=True)."
        )
    print(f"{told}; it was replaced by zeros for {wanted[1][0]} classes.")
    return {**params, **{name: np.zeros(shape, np.float32) for name, shape in zip(names, wanted, strict=True)}}


def _our_name(name: str) -> str:
    if not name.startswith(_PREFIX):
        return name
    # In some files TensorFlow numbered the convolutions: standardized_conv2d_17.
    rest = re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", name.removeprefix(_PREFIX))
    if match := _IN_UNIT.fullmatch(rest):
        return match[1] + _UNIT[match[2]] if match[2] in _UNIT else name
    return _TOP.get(rest, name)

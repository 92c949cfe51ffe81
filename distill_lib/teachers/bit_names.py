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
from distill_lib.teachers.timm_names import RULES, renamed

_NORMS = re.compile(r"(block\d+/unit\d+/gn[123]|norm-pre-head)/(scale|bias)")  # other families have other names


def to_ours(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames and reshapes the parameters of a BiT file, keeping others; DistillError if two would get one name."""
    ours: dict[str, np.ndarray] = {}
    for theirs, value in flat.items():
        name = renamed(theirs, RULES["big_transfer"])
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
    mismatch = f"{source} has a head of {bias[0]} classes"
    if not replace:
        raise DistillError(
            f"{mismatch}, the model one of {wanted[1][0]}; choose a file for these classes (`published.load` can start "
            "from a head of zeros: replace_head=True)."
        )
    print(f"{mismatch}; it was replaced by zeros for {wanted[1][0]} classes.")
    return {**params, **{name: np.zeros(shape, np.float32) for name, shape in zip(names, wanted, strict=True)}}

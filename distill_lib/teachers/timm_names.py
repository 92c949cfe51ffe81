"""Networks that timm has under another name: their weights in its names and layout, both ways.

Which arrays there are follows from what a model of this library wants. Convolutions are (out, in, height, width) there
and dense layers (out, in), some of them 1 x 1 convolutions; a ViT's query, key and value are one matrix. A file of
timm's is `model.safetensors` with `config.json` beside it, which says what the network is and wants to be shown.

See github.com/huggingface/pytorch-image-models, timm/models, and _hub.py there for config.json.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib import weights
from distill_lib.errors import DistillError, unknown

Flat = dict[str, np.ndarray]

SUFFIX = ".safetensors"
FILE = Path(__file__).parents[1] / "data" / "parameter_names.toml"
RULES: dict[str, dict[str, str]] = tomllib.loads(FILE.read_text(encoding="utf-8"))
"""How names are changed, as the file says."""
NETWORKS = RULES["networks"]
"""timm's names of the networks that it has, by their names here."""

_AS_CONVOLUTION = re.compile(r"head\.fc\.|conv_head\.|\.se\.")  # dense layers here, 1 x 1 convolutions there
_PARTS = ("query", "key", "value")


def timm_name(name: str, names: Collection[str]) -> str:
    """What timm calls an array of a network that has these; of query, key and value each by itself."""
    rules = RULES["vit" if "cls" in names else "bit"]
    if "cls" not in names and "root_block/conv_root/kernel" not in names:
        block = re.sub(r"^batch_stats/|[^/]+/(conv|norm)/\w+$", "", name)
        parts = RULES["expanding" if f"{block}expand/conv/kernel" in names else "narrow"]
        outside = {"last/conv/": "conv_head/", "last/norm/": "bn2/"}
        if "hidden/kernel" in names:
            stages = max(int(match[1]) for each in names if (match := re.match(r"stage(\d+)/", each)))
            outside = {"last/conv/": f"blocks.{stages}.0.conv/", "last/norm/": f"blocks.{stages}.0.bn1/"}
            outside["hidden/"] = "conv_head/"
        rules = RULES["mobile"] | outside | parts
    return renamed(name, rules | RULES["kinds"])


def renamed(name: str, rules: Mapping[str, str]) -> str:
    """A name after the replacements of a table of `RULES`."""
    for pattern, theirs in rules.items():
        name = re.sub(pattern, theirs, name)
    return re.sub(r"<(\d+)>", lambda match: str(int(match[1]) - 1), name)


def to_timm(ours: Flat) -> Flat:
    """The arrays of a network, `weights.pack` of its variables as one level, as timm has them."""
    theirs = {}
    for name, value in ours.items():
        new = timm_name(name, ours)
        if name.endswith("/kernel"):
            inputs = value.shape[0] if name.split("/")[-2] in _PARTS else int(np.prod(value.shape[:-1]))
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.reshape(inputs, -1).T
            value = value[..., None, None] if value.ndim == 2 and _AS_CONVOLUTION.search(new) else value
        elif value.ndim != 3:  # the class token and the position embedding stay
            value = value.reshape(-1)
        theirs[new] = value
    for name in [name for name in theirs if ".query." in name]:
        several = [theirs.pop(name.replace(".query.", f".{part}.")) for part in _PARTS]
        theirs[name.replace(".query.", ".qkv.")] = np.concatenate(several)
    return theirs


def to_ours(theirs: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> Flat:
    """Arrays of timm's as a model wants them, of which `expected` has the arrays or shapes, as `to_timm` takes them.

    What is missing, surplus or of another size stays so, for `weights.match` to tell.
    """
    left = {name: value for name, value in theirs.items() if not name.endswith(".num_batches_tracked")}
    for name in [name for name in left if ".qkv." in name]:
        for part, value in zip(_PARTS, np.split(left.pop(name), 3), strict=True):
            left[name.replace(".qkv.", f".{part}.")] = value
    ours = {}
    for name, leaf in expected.items():
        if (new := timm_name(name, expected)) not in left:
            continue
        value = left.pop(new)
        if name.endswith("/kernel"):
            value = value.transpose(2, 3, 1, 0) if len(leaf.shape) == 4 else value.reshape(len(value), -1).T
        ours[name] = value.reshape(leaf.shape) if value.size == np.prod(leaf.shape) else value
    return ours | left


def read(path: Path, expected: Mapping[str, Any]) -> Flat:
    """The arrays of a file of safetensors as a model wants them, as of `to_ours`; DistillError if it is damaged."""
    arrays, _ = _opened(path)
    weights.refuse_not_finite(arrays, path)
    return arrays if any("/" in name for name in arrays) else to_ours(arrays, expected)


def facts(path: Path) -> dict[str, Any]:
    """Model, resolution and input_range of a file of safetensors, by itself or `config.json`; DistillError for none."""
    _, metadata = _opened(path, ())
    if "model" in metadata:  # an export of this library
        described = {name: json.loads(metadata[name]) for name in ("input_range", "image_shape") if name in metadata}
        size = {"resolution": described["image_shape"][0]} if "image_shape" in described else {}
        return {"model": metadata["model"], "input_range": described.get("input_range", [-1.0, 1.0])} | size
    config = path.with_name("config.json")
    try:
        about = json.loads(config.read_bytes())
        about |= about.get("pretrained_cfg", {})
        known = {theirs: ours for ours, theirs in NETWORKS.items()}
        mean, deviation = np.array(about["mean"]), np.array(about["std"])
        ends = [((end - mean) / deviation).tolist() for end in (0, 1)]
        side, architecture = int(about["input_size"][-1]), str(about["architecture"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DistillError(
            f"{path} does not say which network it holds: put timm's config.json beside it, with architecture, "
            f"input_size, mean and std ({type(error).__name__}: {error})."
        ) from error
    if architecture not in known:
        raise unknown("network of timm", architecture, known)
    alike = all(len(set(end)) == 1 for end in ends)
    return {
        "model": known[architecture],
        "resolution": side,
        "input_range": [end[0] for end in ends] if alike else ends,
    }


def _opened(path: Path, names: Collection[str] | None = None) -> tuple[Flat, dict[str, str]]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise DistillError(f"{path} needs safetensors: pip install 'distill_lib[export]'.") from error
    try:
        with safe_open(path, "numpy") as file:
            asked = file.keys() if names is None else names
            return {name: file.get_tensor(name) for name in asked}, dict(file.metadata() or {})
    except Exception as error:  # its own kinds, and what files and arrays raise
        raise DistillError(f"{path} cannot be read ({' '.join(str(error).split())}); get it again.") from error

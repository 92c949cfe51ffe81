"""Published checkpoints by name: what they are, where they lie, and their parameters in a model.

`distill teachers` prints the table, `distill teachers NAME` gets a file. Files are looked for in the folder that
DISTILL_CHECKPOINTS names, then in ~/.cache/distill_lib/checkpoints, and else downloaded into the latter. The publishers
give no digests: the first use of a name records the file's SHA-256 in ~/.cache/distill_lib/checkpoints.lock.json, and
every later use of that name must find the same file.

References:
    Files: github.com/google-research/big_vision, configs/proj/distill (README.md and common.py);
    github.com/google-research/big_transfer, README.md; timm 1.0, models/vision_transformer.py for AugReg.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_lib import weights
from distill_lib.errors import DistillError, unknown
from distill_lib.teachers import bit_names, timm_names
from distill_lib.teachers.download import check_digest, fetch

if TYPE_CHECKING:
    import flax.linen as nn

_BIT = "https://storage.googleapis.com/bit_models"
_AUGREG = "https://storage.googleapis.com/vit_models/augreg"
_TABLE_4 = "arXiv 2106.05237, table 4 (the teacher itself, test split)"
_TIMM = "timm's evaluation (results-imagenet.csv at aa4b585, crop 0.9)"
_POSITIONS = "Transformer/posembed_input/pos_embedding"


@dataclass(frozen=True)
class Checkpoint:
    """One published file."""

    name: str  #: what it is asked for by
    model: str  #: name of the model that it holds
    url: str
    num_classes: int
    resolution: int  #: height and width in pixels of the images that it was trained or fine-tuned on
    parameters: int  #: how many numbers it holds
    top1: float | None  #: accuracy in percent that its evaluation should come to, if there is one to compare with
    source: str  #: of `top1`, and what contradicts it

    @property
    def file(self) -> str:
        """Name of the file, here and where it is published."""
        return self.url.rpartition("/")[2]

    @property
    def about_bytes(self) -> int:
        """Size of the file, computed for float32 numbers: the publishers do not give it."""
        return 4 * self.parameters


def _teacher(data: str, num_classes: int, resolution: int, parameters: int, top1: float, source: str) -> Checkpoint:
    url = f"{_BIT}/distill/R152x2_T_{data}.npz"
    return Checkpoint(f"R152x2_T_{data}", "bit_r152x2", url, num_classes, resolution, parameters, top1, source)


def _student(resolution: int, top1: float, source: str) -> Checkpoint:
    url = f"{_BIT}/distill/R50x1_{resolution}.npz"
    return Checkpoint(f"R50x1_{resolution}", "bit_r50x1", url, 1000, resolution, 25_549_352, top1, source)


def _bitm(network: str, parameters: int) -> Checkpoint:
    name, source = f"BiT-M-{network}", "none: pre-trained on ImageNet-21k (21,843 classes), to start from"
    return Checkpoint(name, f"bit_{network.lower()}", f"{_BIT}/{name}.npz", 21_843, 224, parameters, None, source)


def _augreg(size: str, parameters: int, top1: float, settings: str, learning_rate: str) -> Checkpoint:
    pretrained = f"{size}_16-i21k-300ep-lr_0.001-{settings}-do_0.0-sd_0.0"
    url = f"{_AUGREG}/{pretrained}--imagenet2012-steps_20k-lr_{learning_rate}-res_224.npz"
    return Checkpoint(f"AugReg_{size}16_224", f"vit_{size.lower()}16", url, 1000, 224, parameters, top1, _TIMM)


# Where the sources of a top-1 contradict each other, the paper's is taken (at 384: the one that timm comes nearest to).
_ALL = (
    _teacher("224", 1000, 224, 236_335_208, 83.0, "arXiv 2106.05237, section 3.2, and released README; timm: 82.92"),
    _teacher("384", 1000, 384, 236_335_208, 83.7, "arXiv 2106.05237, section 3.3; timm: 83.86; released README: 84.3"),
    _teacher("flowers128", 102, 128, 232_656_102, 97.82, _TABLE_4),
    _teacher("pet128", 37, 128, 232_389_797, 91.03, _TABLE_4),
    _teacher("food128", 101, 128, 232_652_005, 86.24, _TABLE_4),
    _teacher("sun128", 397, 128, 233_864_717, 74.22, _TABLE_4),
    _student(160, 80.5, "released README; arXiv 2106.05237, table 1: 80.49 after 9,600 epochs"),
    _student(224, 82.8, "released README; timm: 82.82, as table 3 of arXiv 2106.05237 for two teachers"),
    _bitm("R50x1", 68_256_659),
    _bitm("R152x2", 321_728_979),
    _augreg("Ti", 5_717_416, 75.45, "aug_none-wd_0.03", "0.03"),
    _augreg("S", 22_050_664, 81.40, "aug_light1-wd_0.03", "0.03"),
    _augreg("B", 86_567_656, 84.53, "aug_medium1-wd_0.1", "0.01"),
)

SUFFIXES = (".npz", timm_names.SUFFIX)
"""Of files that may be named by their path."""
CHECKPOINTS = {checkpoint.name: checkpoint for checkpoint in _ALL}
"""All published checkpoints, by name."""


def cache() -> Path:
    """The folder that files are downloaded into."""
    return Path.home() / ".cache" / "distill_lib" / "checkpoints"


def resolve(name_or_path: weights.File, *, folder: Path | None = None) -> Path:
    """The file of a name in `CHECKPOINTS`, downloaded if need be, or the path of any other file, as it is.

    `folder` is the only one to look in, and to download into; None looks into DISTILL_CHECKPOINTS and the cache. Raises
    DistillError if the name is unknown, the file is not there and cannot be had, or it is not that of its first use.
    """
    text = os.fspath(name_or_path)
    if text not in CHECKPOINTS:
        return _local(text)
    checkpoint, lock = CHECKPOINTS[text], cache().with_name("checkpoints.lock.json")
    path = at_hand(checkpoint, folder)
    if path is None:
        target, by_hand = (folder or cache()) / checkpoint.file, _folders(folder)[0]
        return fetch(checkpoint.url, target, lambda whole: check_digest(text, whole, lock), by_hand=by_hand)
    check_digest(text, path, lock)
    return path


def at_hand(checkpoint: Checkpoint, folder: Path | None = None) -> Path | None:
    """Where a checkpoint's file lies, or None; what it holds is not looked at."""
    return next((path for place in _folders(folder) if (path := place / checkpoint.file).is_file()), None)


def load(
    name_or_path: weights.File, model: nn.Module, image_shape: tuple[int, int, int], *, replace_head: bool = False
) -> dict[str, weights.Tree]:
    """Loads a checkpoint into a model: its variables, as float32 NumPy arrays.

    Args:
        name_or_path: a name in `CHECKPOINTS`, or the path of an .npz in its naming or this library's, or of a file of
            timm's (see `timm_names`).
        model: the module.
        image_shape: (height, width, channels) of the images it is for; a ViT's position embedding is resized to it.
        replace_head: whether a head of another number of classes is replaced by zeros, which is then printed.

    Raises:
        DistillError: as `resolve`, or if the file is damaged or does not fit the model.
    """
    from distill_lib import models

    path = resolve(name_or_path)
    expected = weights.flatten(weights.pack(models.shapes(model, image_shape)))
    if path.suffix == timm_names.SUFFIX:
        flat = timm_names.read(path, expected)
    else:
        flat = bit_names.to_ours(weights.flatten(weights.load_npz(path)))
    for name, value in flat.items():
        if not np.issubdtype(value.dtype, np.floating):
            raise DistillError(f"{path}: {name} holds {value.dtype}, not floating-point numbers; get another file.")
        if value.dtype.itemsize > 4 and np.abs(value).max(initial=0) > np.finfo(np.float32).max:
            raise DistillError(f"{path}: {name} holds numbers that float32 does not; get another file.")
        flat[name] = value.astype(np.float32, copy=False)
    flat = bit_names.fit_head(_positioned(flat, expected, image_shape[0]), expected, str(path), replace=replace_head)
    return weights.unpack(weights.match(weights.unflatten(flat), weights.unflatten(expected), str(path)))


def _folders(folder: Path | None) -> list[Path]:
    if folder is not None:
        return [folder]
    if not (named := os.environ.get("DISTILL_CHECKPOINTS")):
        return [cache()]
    if not (first := Path(named).expanduser()).is_dir():
        raise DistillError(f"DISTILL_CHECKPOINTS names {first}, which is no folder; make it, or unset the variable.")
    return [first, cache()]


def _local(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.suffix not in SUFFIXES and len(path.parts) == 1:
        raise unknown("checkpoint", text, [*CHECKPOINTS, f"a path ending in {' or '.join(SUFFIXES)}"])
    hint = f", or give the name {path.stem} to have it downloaded" if path.stem in CHECKPOINTS else ""
    raise DistillError(f"no checkpoint at {text}; check the path{hint}.")


def _positioned(flat: dict[str, np.ndarray], expected: Mapping[str, Any], side: int) -> dict[str, np.ndarray]:
    """Resizes a ViT's position embedding if its length is all that does not fit."""
    from distill_lib.models import vit

    if not {_POSITIONS, "embedding/kernel"} <= flat.keys() & expected.keys():
        return flat
    have, want = flat[_POSITIONS].shape, expected[_POSITIONS].shape
    if have == want or (have[:1], have[2:]) != (want[:1], want[2:]):
        return flat
    resized = weights.flatten(vit.resize_positions(weights.unflatten(flat), side))
    return flat | {_POSITIONS: np.asarray(resized[_POSITIONS])}


def table(folder: Path | None = None) -> str:
    """All published checkpoints in columns: name, model, size, top-1, where it is at hand, source of top-1."""
    rows = [("name", "model", "size", "top-1 %", "at hand", "source of top-1")]
    for each in CHECKPOINTS.values():
        top1, where = "-" if each.top1 is None else f"{each.top1:g}", str(at_hand(each, folder) or "no")
        rows.append((each.name, each.model, f"about {each.about_bytes / 1e6:.0f} MB", top1, where, each.source))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

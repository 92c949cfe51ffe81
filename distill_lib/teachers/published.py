"""Published checkpoints by name (of big_vision, big_transfer, and AugReg as timm has them): what and where they are.

Files are looked for in the folder that DISTILL_CHECKPOINTS names, then in ~/.cache/distill_lib/checkpoints, and else
downloaded into the latter. The publishers give no digests: the first use of a name records the file's SHA-256 in
~/.cache/distill_lib/checkpoints.lock.json, and every later use must find the same file.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_lib import weights
from distill_lib.errors import DistillError, aligned, unknown
from distill_lib.teachers import bit_names, timm_names

if TYPE_CHECKING:
    import flax.linen as nn

TABLE = Path(__file__).parents[1] / "data" / "checkpoints.csv"
TIMEOUT = 20  # seconds without an answer or a byte
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
        """Size of the file, of float32 numbers: the publishers do not give it."""
        return 4 * self.parameters


def _read() -> dict[str, Checkpoint]:
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row |= {name: int(row[name]) for name in ("num_classes", "resolution", "parameters")}
        row["top1"] = float(row["top1"]) if row["top1"] else None
    return {row["name"]: Checkpoint(**row) for row in rows}


# Where the sources of a top-1 contradict each other, the paper's is taken (at 384: the one that timm comes nearest to).
SUFFIXES = (".npz", timm_names.SUFFIX)  # of files that may be named by their path
CHECKPOINTS = _read()
"""All published checkpoints, by name."""


def cache() -> Path:
    """The folder that files are downloaded into."""
    return Path.home() / ".cache" / "distill_lib" / "checkpoints"


def resolve(name_or_path: weights.File, *, folder: Path | None = None) -> Path:
    """The file of a name in `CHECKPOINTS`, in or downloaded into a folder, or of a path; DistillError without one."""
    text = os.fspath(name_or_path)
    if text not in CHECKPOINTS:
        path = Path(text).expanduser()
        if path.is_file():
            return path
        if path.suffix not in SUFFIXES and len(path.parts) == 1:
            raise unknown("checkpoint", text, [*CHECKPOINTS, f"a path ending in {' or '.join(SUFFIXES)}"])
        hint = f", or give the name {path.stem} to have it downloaded" if path.stem in CHECKPOINTS else ""
        raise DistillError(f"no checkpoint at {text}; check the path{hint}.")
    checkpoint, lock = CHECKPOINTS[text], cache().with_name("checkpoints.lock.json")
    if held := at_hand(checkpoint, folder):
        check_digest(text, held, lock)
        return held
    target, by_hand = (folder or cache()) / checkpoint.file, _folders(folder)[0]
    return fetch(checkpoint.url, target, lambda whole: check_digest(text, whole, lock), by_hand=by_hand)


def at_hand(checkpoint: Checkpoint, folder: Path | None = None) -> Path | None:
    """Where a checkpoint's file lies, or None; what it holds is not looked at."""
    return next((path for place in _folders(folder) if (path := place / checkpoint.file).is_file()), None)


def load(
    name_or_path: weights.File, model: nn.Module, image_shape: tuple[int, int, int], *, replace_head: bool = False
) -> dict[str, weights.Tree]:
    """Loads a checkpoint, a name or a path (see `timm_names`), into a model: its variables, as float32 NumPy arrays.

    A ViT's position embedding is resized to `image_shape`, (height, width, channels). With `replace_head` a head of
    another number of classes becomes zeros, which is printed. DistillError if there is none, or it does not fit.
    """
    from distill_lib import models
    from distill_lib.models import vit

    path = resolve(name_or_path)
    expected = weights.flatten(weights.pack(models.shapes(model, image_shape)))
    flat = arrays(path, expected)
    for name, value in flat.items():
        if not np.issubdtype(value.dtype, np.floating):
            raise DistillError(f"{path}: {name} holds {value.dtype}, not floating-point numbers; get another file.")
        if value.dtype.itemsize > 4 and np.abs(value).max(initial=0) > np.finfo(np.float32).max:
            raise DistillError(f"{path}: {name} holds numbers that float32 does not; get another file.")
        flat[name] = value.astype(np.float32, copy=False)
    if {_POSITIONS, "embedding/kernel"} <= flat.keys() & expected.keys():
        have, want = flat[_POSITIONS].shape, expected[_POSITIONS].shape
        if have != want and (have[:1], have[2:]) == (want[:1], want[2:]):
            flat[_POSITIONS] = np.asarray(vit.resize_positions(flat[_POSITIONS], math.isqrt(want[1] - 1)))
    flat = bit_names.fit_head(flat, expected, str(path), replace=replace_head)
    return weights.unpack(weights.match(weights.unflatten(flat), weights.unflatten(expected), str(path)))


def arrays(path: Path, expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file in this library's names, of which a model wants those `expected`; or raises DistillError."""
    if path.suffix == timm_names.SUFFIX:
        return timm_names.read(path, expected)
    return bit_names.to_ours(weights.flatten(weights.load_npz(path)))


def fetch(url: str, path: Path, accept: Callable[[Path], object], *, by_hand: Path | None = None) -> Path:
    """Downloads a file to a path, which is returned; one that is there stays.

    It gets its name once it is whole and `accept` has not raised for it. What goes wrong is tried once more, and then a
    DistillError, which asks for the file in `by_hand` (the path's folder).
    """
    import pooch
    from tqdm import tqdm

    def download(url: str, target: Any, files: pooch.Pooch) -> None:
        # what is packed on the way has another length than it says
        options: dict[str, Any] = {"timeout": TIMEOUT, "chunk_size": 2**16, "headers": {"Accept-Encoding": "identity"}}
        with tqdm(total=1, unit="B", unit_scale=True, disable=None) as progress:  # at a terminal; pooch sets the total
            pooch.HTTPDownloader(progressbar=progress, **options)(url, target, files)
        accept(Path(target))

    if path.exists():
        return path
    files = pooch.create(path.parent, base_url="", registry={path.name: None}, urls={path.name: url}, retry_if_failed=1)
    try:
        files.fetch(path.name, downloader=download)
        path.chmod(0o644)  # temporary files are for their makers alone
    except (OSError, ValueError) as error:  # those of requests are the former, addresses that are none the latter
        raise DistillError(
            f"{url} cannot be downloaded to {path} ({_reason(error)}); call again, or get the file by other means and "
            f"put it into {by_hand or path.parent} as {path.name}."
        ) from error
    return path


def check_digest(name: str, path: Path, lock: Path) -> None:
    """Compares a file's SHA-256 with what the lock recorded at the name's first use; DistillError if it differs."""
    digest = weights.sha256(path)
    try:
        entries = json.loads(lock.read_text(encoding="utf-8")) if lock.exists() else {}
        sound = all(isinstance(value, str) for value in entries.values())
    except (OSError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise DistillError(f"{lock} is not a readable lock file; repair it, or remove it to record all files anew.")
    if name not in entries:
        try:
            weights.load_npz(path)
        except DistillError as error:
            raise DistillError(f"the file of {name} in {path.parent} is not a whole .npz: {error}") from error
        entries[name] = digest
        weights.write_atomically(lock, (json.dumps(entries, indent=2, sort_keys=True) + "\n").encode())
    if digest != entries[name]:
        raise DistillError(
            f"the file of {name} in {path.parent} has SHA-256 {digest}, but {entries[name]} was recorded; if the new "
            f"file is the right one, remove {name} from {lock}, else remove the file, and call again."
        )


def _reason(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__


def _folders(folder: Path | None) -> list[Path]:
    if folder is not None:
        return [folder]
    named = [Path(name).expanduser() for name in filter(None, [os.environ.get("DISTILL_CHECKPOINTS")])]
    for place in named:
        if not place.is_dir():
            raise DistillError(f"DISTILL_CHECKPOINTS names {place}, which is no folder; make it, or unset it.")
    return [*named, cache()]


def table(folder: Path | None = None) -> str:
    """All published checkpoints in columns: name, model, size, top-1, where it is at hand, source of top-1."""
    rows = [("name", "model", "size", "top-1 %", "at hand", "source of top-1")]
    for each in CHECKPOINTS.values():
        top1, where = "-" if each.top1 is None else f"{each.top1:g}", str(at_hand(each, folder) or "no")
        rows.append((each.name, each.model, f"about {each.about_bytes / 1e6:.0f} MB", top1, where, each.source))
    return aligned(rows)

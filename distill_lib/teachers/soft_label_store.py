"""A store of soft labels: a folder with a header, which says whose they are and of which views, and shards of them.

Shards hold the steps in their order, and the header is written after each of them, so that it covers whole shards only:
writing can be stopped at any moment and goes on where it was. Each shard holds a digest of whose soft labels it has, of
which views and steps, so that none is taken for another, wherever it comes from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import sharding, weights
from distill_lib.errors import DistillError
from distill_lib.teachers import soft_labels
from distill_lib.teachers.soft_labels import SoftLabels

FORMAT = 2
SHARD_STEPS = 64  # at most
SHARD_BYTES = 8 * 2**20  # before compression, at most
SAME_VIEW = 1e-3  # largest difference of mean pixels, in [-1, 1], between two renderings of one view
_HEADER = "header.json"
_LOCK = ".lock"  # of `checkpoint.alone`, while soft labels are stored
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Store:
    """A folder of stored soft labels.

    Attributes:
        folder: where it lies.
        header: content of header.json: `about` (whose, of which views), `kept` (logits of each), `steps`
            (that are covered, from the first), `views`, `bytes` (of all shards) and `shard_steps`.
    """

    folder: Path
    header: Mapping[str, Any]

    @property
    def kept(self) -> int:
        """Logits that are kept of each answer."""
        return self.header["kept"]

    @property
    def steps(self) -> int:
        """Steps that are covered, from the first."""
        return self.header["steps"]

    @property
    def bytes_per_view(self) -> float:
        """Size of the shards, divided by the views that they are of."""
        return self.header["bytes"] / max(self.header["views"], 1)

    def require(self, about: Fields, steps: int) -> None:
        """Refuses a run that these soft labels are not for.

        Args:
            about: what those of the run depend on.
            steps: length of its schedule.

        Raises:
            DistillError: naming the first setting that differs and both values, or how many steps are missing.
        """
        for name, value in _plain(about).items():
            if (held := self.header["about"].get(name)) != value:
                raise DistillError(
                    f"{self.folder} holds soft labels for {name} {held}, this run has {name} {value}: replay with the "
                    "same, or store those of this run in another folder (distill soft-labels)."
                )
        if self.steps < steps:
            raise DistillError(
                f"{self.folder} holds soft labels for {self.steps} steps, this run has {steps}: choose fewer epochs, "
                "or go on storing with as many (distill soft-labels; what is there is kept)."
            )

    def read(self, step: int) -> SoftLabels:
        """The soft labels of a step, counted from 0, NumPy arrays; raises DistillError where their file is damaged."""
        shard, place = divmod(step, self.header["shard_steps"])
        held = self._shard(shard)
        if place >= len(held["logits"]):
            raise DistillError(
                f"{_path(self.folder, shard)} does not hold step {step}; delete {self.folder} and store it again."
            )
        columns: list[Any] = [held[name][place] if name in held else None for name in SoftLabels._fields]
        return SoftLabels(*columns)

    def check(self, step: int, images: jax.Array) -> None:
        """Compares what a student is shown with what the teacher was shown, at the first step of some shards only.

        The header cannot know whether JAX still draws the same random numbers, or whether pictures were exchanged. To
        look waits for the device, so of small shards only one in each `SHARD_STEPS` steps is looked at.

        Args:
            step: counted from 0.
            images: (batch, size, size, channels), the student's views.

        Raises:
            DistillError: if they are others.
        """
        shard, place = divmod(step, self.header["shard_steps"])
        if place or step % SHARD_STEPS >= self.header["shard_steps"]:
            return
        difference = float(np.abs(sharding.fetch(mean_pixels(images)) - self._shard(shard)["means"]).max())
        if difference > SAME_VIEW:
            raise DistillError(
                f"the views of step {step} are not those that {self.folder} holds soft labels for (their mean pixels "
                f"differ by {difference:.2g}): images or the version of JAX have changed; store the soft labels again."
            )

    def add(self, batches: list[SoftLabels], means: np.ndarray) -> Store:
        """Writes the next shard, and then the header that covers it.

        Args:
            batches: the soft labels of its steps, NumPy arrays.
            means: `mean_pixels` of the first step's views, as the student is shown them.

        Returns:
            The store with them.

        Raises:
            DistillError: if one is not finite, or the folder cannot be written.
        """
        shard = self.steps // self.header["shard_steps"]
        columns = zip(*batches, strict=True)
        arrays = {
            name: np.stack(column)
            for name, column in zip(SoftLabels._fields, columns, strict=True)
            if column[0] is not None
        }
        if not np.isfinite(arrays["logits"]).all():
            raise DistillError(f"the teacher's logits from step {self.steps} on are not finite: mend the teacher.")
        path = _path(self.folder, shard)
        weights.save_npz(path, arrays | {"means": means}, {"holds": self._digest(shard)})
        counts = {"steps": self.steps + len(batches)}
        counts["views"] = self.header["views"] + len(batches) * len(means)
        counts["bytes"] = self.header["bytes"] + path.stat().st_size
        return _written(Store(self.folder, dict(self.header) | counts))

    def _digest(self, shard: int) -> str:
        """Of everything that decides what a shard holds."""
        facts = [self.header[name] for name in ("format", "about", "kept", "shard_steps")]
        return hashlib.sha256(json.dumps([*facts, shard], sort_keys=True).encode()).hexdigest()

    def _shard(self, shard: int) -> dict[str, np.ndarray]:
        path = _path(self.folder, shard)
        try:
            changed = path.stat().st_mtime_ns
        except OSError as error:
            raise DistillError(
                f"cannot read {path} ({error.strerror}); check the folder, or delete it and store them again."
            ) from error
        return _held(path, changed, self._digest(shard))


def begin(
    folder: str | os.PathLike[str], about: Fields, kept: int, *, steps: int, num_classes: int, batch_size: int
) -> Store:
    """Starts a store, or goes on with one whose writing was stopped or that shall cover more steps.

    Args:
        folder: an empty or absent one, or one with soft labels of the same kind.
        about: what the soft labels depend on; JSON-able.
        kept: logits that are kept of each.
        steps: that shall be covered.
        num_classes: length of the logits.
        batch_size: images a step.

    Returns:
        The store as far as it is whole.

    Raises:
        DistillError: if the folder holds anything else, or cannot be written.
    """
    folder = Path(folder)
    if not (folder / _HEADER).is_file():
        if folder.exists() and (
            not folder.is_dir() or set(folder.iterdir()) - {folder / _LOCK, *weights.unfinished(folder)}
        ):
            raise DistillError(f"{folder} holds something else; name an empty folder for the soft labels.")
        shard_steps = max(1, min(SHARD_STEPS, SHARD_BYTES // (batch_size * soft_labels.size(kept, num_classes))))
        facts = {"format": FORMAT, "kept": kept, "steps": 0, "views": 0, "bytes": 0, "shard_steps": shard_steps}
        return _written(Store(folder, facts | {"about": _plain(about)}))
    store = load(folder)
    if store.kept != kept:
        raise DistillError(f"{folder} keeps {store.kept} logits of each, not {kept}; name another folder.")
    store.require(about, 0)
    spare = store.steps % store.header["shard_steps"]
    if store.steps >= steps or not spare:
        return store
    # The last shard is not full and is made again; until it is, the folder stays as it is.
    counts = {"steps": store.steps - spare, "views": store.header["views"] - spare * batch_size}
    counts["bytes"] = _bytes(folder, store.steps // store.header["shard_steps"])
    return Store(folder, dict(store.header) | counts)


def load(folder: str | os.PathLike[str]) -> Store:
    """Opens a store; raises DistillError where there is none, or where its header is damaged or of another version."""
    folder = Path(folder)
    path = folder / _HEADER
    if not path.is_file():
        raise DistillError(
            f"no stored soft labels at {folder}; check the path, or store them first: distill soft-labels {folder}."
        )
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        version = header["format"]
        whole = all(isinstance(header[name], int) for name in ("kept", "steps", "views", "bytes", "shard_steps"))
        if not whole or not isinstance(header["about"], dict):
            raise TypeError("its parts have other types")
    except (ValueError, KeyError, TypeError) as error:
        raise DistillError(
            f"{path} is damaged ({error!r}); delete {folder} and store the soft labels again."
        ) from error
    if version != FORMAT:
        raise DistillError(f"{path} has format {version}, this version reads {FORMAT}; store the soft labels again.")
    return Store(folder, header)


@jax.jit
def mean_pixels(images: jax.Array | np.ndarray) -> jax.Array:
    """The mean of each image (batch, size, size, channels) of a batch, (batch,) float32: it tells views apart."""
    return jnp.mean(jnp.asarray(images), axis=(1, 2, 3))


def _plain(about: Fields) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(dict(about)))


def _written(store: Store) -> Store:
    content = json.dumps(dict(store.header), indent=1, sort_keys=True) + "\n"
    weights.write_atomically(store.folder / _HEADER, content.encode())
    return store


def _bytes(folder: Path, shards: int) -> int:
    """Size of the first shards. A header alone does not tell it: the last shard may be newer than the header is."""
    return sum(path.stat().st_size for path in (_path(folder, shard) for shard in range(shards)) if path.is_file())


def _path(folder: Path, shard: int) -> Path:
    return folder / f"answers-{shard:06d}.npz"


@functools.lru_cache(maxsize=2)
def _held(path: Path, changed: int, digest: str) -> dict[str, np.ndarray]:
    """A shard that is in use; `changed` tells it from one that was written over it."""
    held = weights.load_npz(path)
    if weights.load_metadata(path).get("holds") != digest:
        raise DistillError(
            f"{path} holds other soft labels than {_HEADER} says: of another teacher, other views or other steps; "
            f"delete {path.parent} and store them again."
        )
    return held

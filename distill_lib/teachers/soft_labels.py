"""Soft labels: what is kept of a teacher's logits, and folders of them: training goes on without the teacher.

A view is a function of seed, step and place in the batch, so it is never stored. A folder has a header, which says
whose soft labels it holds and of which views, and shards, each with a digest of that. The header is written after each
shard: writing can be stopped at any moment. Sparse ones, the rest of the mass spread evenly, are those of Wu et al.,
"TinyViT", ECCV 2022, section 3.1.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import sharding, weights
from distill_lib.errors import DistillError

FORMAT = 3
SHARD_STEPS = 64  # at most
SHARD_BYTES = 8 * 2**20  # before compression, at most
SAME_VIEW = 1e-3  # largest difference of mean pixels, in [-1, 1], between two renderings of one view
_LOWEST = float(np.finfo(np.float16).min)
_HEADER = "header.json"
_LOCK = ".lock"  # of `checkpoint.alone`, while soft labels are stored
Fields = Mapping[str, Any]
_FIELDS = ("kept", "steps", "views", "shard_steps", "about")


class SoftLabels(NamedTuple):
    """What is kept of the logits of a batch: differences to the largest one, which is all that a softmax sees."""

    logits: jax.Array | np.ndarray  #: (batch, kept) float16, at most 0; of all classes in order, or of the likeliest
    classes: jax.Array | np.ndarray | None = None  #: (batch, kept) unsigned integers; None where all classes are kept
    rest: jax.Array | np.ndarray | None = None  #: (batch,) float16, what every other class gets, if there is any


@functools.partial(jax.jit, static_argnames="kept")
def keep(logits: jax.Array, kept: int, temperature: jax.Array | float = 1.0) -> SoftLabels:
    """Keeps the largest logits of (batch, classes), and of the others their probability together, at a temperature."""
    num_classes = logits.shape[-1]
    logits = logits - logits.max(axis=-1, keepdims=True)
    if kept >= num_classes:
        return SoftLabels(_half(logits))
    largest, classes = jax.lax.top_k(logits, kept)
    others = jax.vmap(lambda row, at: row.at[at].set(-jnp.inf))(logits, classes)
    rest = temperature * (jax.nn.logsumexp(others / temperature, axis=-1) - np.log(num_classes - kept))
    return SoftLabels(_half(largest), classes.astype(_index(num_classes)), _half(rest))


def restore(soft: SoftLabels, num_classes: int) -> jax.Array:
    """Turns soft labels back into logits (batch, num_classes), float32."""
    logits = jnp.asarray(soft.logits, jnp.float32)
    if soft.classes is None or soft.rest is None:
        return logits
    rest = jnp.repeat(jnp.asarray(soft.rest, jnp.float32)[:, None], num_classes, axis=1)
    return jnp.asarray(jax.vmap(lambda row, at, own: row.at[at].set(own))(rest, jnp.asarray(soft.classes), logits))


def size(kept: int, num_classes: int) -> int:
    """Bytes of one soft label, before compression."""
    if kept >= num_classes:
        return 2 * num_classes
    return kept * (2 + _index(num_classes).itemsize) + 2


def _half(values: jax.Array) -> jax.Array:
    return jnp.maximum(values, _LOWEST).astype(jnp.float16)


def _index(num_classes: int) -> np.dtype:
    return np.min_scalar_type(num_classes - 1)


@dataclass(frozen=True, kw_only=True)
class Store:
    """A folder of stored soft labels, and what its header says of them."""

    folder: Path
    about: Fields  #: whose they are and of which views
    kept: int  #: logits that are kept of each answer
    shard_steps: int  #: steps a shard
    steps: int = 0  #: that are covered, from the first
    views: int = 0  #: that they are of

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        shards = range(-(-self.steps // self.shard_steps))
        return sum(_path(self.folder, shard).stat().st_size for shard in shards)

    @property
    def bytes_per_view(self) -> float:
        """Size of the shards, divided by the views that they are of."""
        return self.bytes / max(self.views, 1)

    def require(self, about: Fields, steps: int) -> None:
        """Raises DistillError, which names the difference, where a run of so many steps needs other soft labels."""
        for name, value in _plain(about).items():
            if (held := self.about.get(name)) != value:
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
        shard, place = divmod(step, self.shard_steps)
        held = self._shard(shard)
        if place >= len(held["logits"]):
            raise DistillError(
                f"{_path(self.folder, shard)} does not hold step {step}; delete {self.folder} and store it again."
            )
        return SoftLabels(**{name: held[name][place] for name in SoftLabels._fields if name in held})

    def check(self, step: int, images: jax.Array) -> None:
        """Compares what a student is shown, (batch, size, size, channels), with what the teacher was shown.

        JAX may draw other numbers, or pictures be exchanged. To look waits for the device: one step of a shard it is.
        """
        shard, place = divmod(step, self.shard_steps)
        if place or step % SHARD_STEPS >= self.shard_steps:
            return
        difference = float(np.abs(sharding.fetch(mean_pixels(images)) - self._shard(shard)["means"]).max())
        if difference > SAME_VIEW:
            raise DistillError(
                f"the views of step {step} are not those that {self.folder} holds soft labels for (their mean pixels "
                f"differ by {difference:.2g}): images or the version of JAX have changed; store the soft labels again."
            )

    def add(self, batches: list[SoftLabels], means: np.ndarray) -> Store:
        """Writes the next shard's steps, NumPy arrays, and then the header; returns the new store, or DistillError.

        `means` are the `mean_pixels` of the first step's views.
        """
        shard = self.steps // self.shard_steps
        columns = zip(SoftLabels._fields, zip(*batches, strict=True), strict=True)
        arrays = {name: np.stack(column) for name, column in columns if column[0] is not None}
        if not np.isfinite(arrays["logits"]).all():
            raise DistillError(f"the teacher's logits from step {self.steps} on are not finite: mend the teacher.")
        weights.save_npz(_path(self.folder, shard), arrays | {"means": means}, {"holds": self._digest(shard)})
        steps, views = self.steps + len(batches), self.views + len(batches) * len(means)
        return _written(replace(self, steps=steps, views=views))

    def _digest(self, shard: int) -> str:
        about = {"format": FORMAT, "about": self.about, "kept": self.kept, "shard_steps": self.shard_steps}
        return _checksum(about | {"shard": shard})

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
    """Starts a store, or goes on with one whose writing was stopped or that shall cover more steps, as far as whole.

    DistillError if the folder holds anything but soft labels of the same JSON-able `about` that keep as many logits.
    """
    folder = Path(folder)
    if not (folder / _HEADER).is_file():
        own = {folder / _LOCK, *weights.unfinished(folder)}
        if folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - own):
            raise DistillError(f"{folder} holds something else; name an empty folder for the soft labels.")
        shard_steps = max(1, min(SHARD_STEPS, SHARD_BYTES // (batch_size * size(kept, num_classes))))
        return _written(Store(folder=folder, about=_plain(about), kept=kept, shard_steps=shard_steps))
    store = load(folder)
    if store.kept != kept:
        raise DistillError(f"{folder} keeps {store.kept} logits of each, not {kept}; name another folder.")
    store.require(about, 0)
    spare = store.steps % store.shard_steps
    if store.steps >= steps or not spare:
        return store
    # The last shard is not full and is made again; until it is, the folder stays as it is.
    return replace(store, steps=store.steps - spare, views=store.views - spare * batch_size)


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
        version, sound = header["format"], header.pop("checksum", None) == _checksum(header)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        version, sound = FORMAT, False
    if version != FORMAT:
        raise DistillError(f"{path} has format {version}, this version reads {FORMAT}; store the soft labels again.")
    if not sound:
        raise DistillError(f"{path} is damaged; delete {folder} and store the soft labels again.")
    return Store(folder=folder, **{name: header[name] for name in _FIELDS})


@jax.jit
def mean_pixels(images: jax.Array | np.ndarray) -> jax.Array:
    """The mean of each image (batch, size, size, channels) of a batch, (batch,) float32: it tells views apart."""
    return jnp.mean(jnp.asarray(images), axis=(1, 2, 3))


def _plain(about: Fields) -> dict[str, Any]:
    return dict(json.loads(json.dumps(dict(about))))


def _written(store: Store) -> Store:
    header = {name: getattr(store, name) for name in _FIELDS} | {"format": FORMAT}
    content = json.dumps(header | {"checksum": _checksum(header)}, indent=1, sort_keys=True) + "\n"
    weights.write_atomically(store.folder / _HEADER, content.encode())
    return store


def _checksum(header: Fields) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


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

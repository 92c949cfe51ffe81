"""Damaged files: what is read is what was written, or the one before it, or refused in a line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import picture_files

from distill_lib import datasets, records, weights
from distill_lib.datasets import decode
from distill_lib.errors import DistillError
from distill_lib.teachers import soft_labels
from distill_lib.train import checkpoint
from faults.outcomes import Table, outcome

KINDS = ("flipped bit", "cut", "zeros within", "lengthened", "exchanged halves")


@dataclass(frozen=True)
class Stored:
    """A file that is damaged, and how its content is read: as something comparable.

    `also` are contents that are right too, such as that of the checkpoint before a damaged one.
    """

    name: str
    path: Path
    read: Callable[[], object]
    also: tuple[object, ...] = ()


def damaged(content: bytes, kind: str, numbers: np.random.Generator) -> bytes:
    """The content with one damage of a kind at a random place."""
    place = int(numbers.integers(len(content)))
    if kind == "flipped bit":
        changed = bytearray(content)
        changed[place] ^= 1 << int(numbers.integers(8))
        return bytes(changed)
    if kind == "cut":
        return content[:place]
    if kind == "zeros within":
        length = min(int(numbers.integers(1, 512)), len(content) - place)
        return content[:place] + bytes(length) + content[place + length :]
    if kind == "lengthened":
        return content + content[-1 - place % 64 :]
    return content[place:] + content[:place]


def try_all(stored: Stored, cases: int, table: Table) -> None:
    """Damages a file in so many ways of each kind, and puts it back."""
    content, expected = stored.path.read_bytes(), stored.read()
    numbers = np.random.default_rng(len(content))
    beside = {path: path.read_bytes() for path in stored.path.parent.iterdir() if path.is_file()}
    for kind in KINDS:
        for number in range(cases):
            changed = damaged(content, kind, numbers)
            if changed == content:
                continue
            stored.path.write_bytes(changed)
            table.add(kind, stored.name, *_outcome(stored, expected, f"{number}"))
            for path, before in beside.items():  # a damaged checkpoint is set aside
                if path == stored.path or not path.exists():
                    path.write_bytes(before)


def _outcome(stored: Stored, expected: object, about: str) -> tuple[str, str]:
    ended, said = outcome(stored.read, [expected, *stored.also])
    return ended, f"{about}: {said}"


def stored_files(begun: Path, trained: Path, labels: Path, work: Path) -> Iterator[Stored]:
    """Of everything that is kept one file.

    Args:
        begun: the folder of a run that was stopped, with two checkpoints.
        trained: the folder of a finished run.
        labels: a store of soft labels.
        work: a folder for pictures.
    """
    newest, before = begun / checkpoint.NEWEST, begun / checkpoint.BEFORE
    state = newest.read_bytes()
    shutil.copy(before, newest)
    older = read_checkpoint(begun)
    newest.write_bytes(state)
    yield Stored("checkpoint", newest, lambda: read_checkpoint(begun), (older,))
    for name in ("run.json", "metrics.csv"):
        yield Stored(name, trained / name, lambda: read_record(trained))
    yield Stored("student.npz", trained / "student.npz", lambda: read_npz(trained / "student.npz"))
    shard = sorted(labels.glob("*.npz"))[-1]
    for name, path in (("soft labels", shard), ("header of soft labels", labels / "header.json")):
        yield Stored(name, path, lambda: read_labels(labels))
    for kind in ("png", "jpg"):
        root = picture_files.fill(work / kind, 3)
        path = root / "tulips" / f"0.{kind}"
        pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
        picture_files.write(path, pixels)
        yield Stored(f"picture ({kind})", path, lambda root=root, path=path: read_picture(root, path))


def read_checkpoint(folder: Path) -> object:
    """The newest state that is whole, with its facts."""
    saved = checkpoint.load(folder)
    return saved and ([leaf.tobytes() for leaf in saved[0]], saved[1])


def read_record(folder: Path) -> object:
    """The record of a run, and its metrics."""
    record = records.load(folder)
    return record and (record, records.read_rows(folder, record))


def read_npz(path: Path) -> object:
    """Parameters and facts."""
    flat = weights.flatten(weights.load_npz(path))
    facts = weights.load_metadata(path)
    return {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in flat.items()}, facts


def read_labels(folder: Path) -> object:
    """All soft labels of a store, and what its header says."""
    store = soft_labels.load(folder)
    held = [store.read(step) for step in range(store.steps)]
    return (store.kept, store.steps, store.views, store.about), [
        [part.tobytes() for part in labels if part is not None] for labels in held
    ]


def read_picture(root: Path, path: Path) -> object:
    """Pixels of a picture in a folder of them: those that the digest, which a run remembers, is of."""
    digests = [datasets.digest(f"folder:{root}", split) for split in ("train", "validation", "test")]
    if digests != _DIGESTS.setdefault(root, digests):
        raise DistillError("these are other data, which a run that was begun refuses.")
    return decode.decode(path.read_bytes()).tobytes()


_DIGESTS: dict[Path, list[str]] = {}

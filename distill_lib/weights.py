"""Parameter trees in .npz files: no pickles, and a file is either whole or not there."""

import contextlib
import hashlib
import io
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib.errors import DistillError

Tree = dict[str, Any]
"""A nested dict of arrays."""
File = str | os.PathLike[str]

EXPANDED, MOST_EXPANSION = 64 * 2**20, 16
"""Bytes that any file may expand to, and for larger ones how many times their size."""

_METADATA = "__metadata__"


def save_npz(path: File, params: Tree, metadata: dict[str, Any] | None = None, *, compressed: bool = True) -> None:
    """Writes a tree of arrays and JSON-able facts atomically, equal bytes for equal content; or raises DistillError."""
    arrays: Tree = {name: np.asarray(value) for name, value in sorted(flatten(params).items())}
    if metadata is not None:
        arrays[_METADATA] = np.array(json.dumps(metadata, sort_keys=True))
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load_npz(path: File) -> Tree:
    """Reads an .npz of finite arrays whose names are paths such as "head/kernel"; DistillError for anything else."""
    arrays = _read(path)
    arrays.pop(_METADATA, None)
    refuse_not_finite(arrays, path)
    groups = {name[:end] for name in arrays for end, letter in enumerate(name) if letter == "/"}
    for name in groups & arrays.keys():
        raise DistillError(f"{path}: {name} is an array and a group of arrays at once; get the checkpoint again.")
    return unflatten(arrays)


def refuse_not_finite(arrays: Tree, source: File) -> None:
    """Raises DistillError where an array of one level holds a number that is not finite."""
    for name, value in arrays.items():
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise DistillError(f"{source}: {name} holds numbers that are not finite; get the checkpoint again.")


def load_metadata(path: File) -> dict[str, Any]:
    """Reads the facts that were kept with the parameters; empty where there are none."""
    arrays = _read(path, only=_METADATA)
    try:
        facts = json.loads(str(arrays[_METADATA])) if arrays else {}
    except (ValueError, RecursionError) as error:
        raise DistillError(f"{path}: what it says of itself is no JSON ({error}); save it again.") from error
    return facts if isinstance(facts, dict) else {}


def sha256(path: File) -> str:
    """SHA-256 of a file of any size, in hexadecimal; DistillError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DistillError(f"cannot read {path} ({error.strerror}); check the path and its permissions.") from error


def flatten(tree: Tree) -> Tree:
    """Turns a nested dict into one level with names such as "head/kernel"."""
    from flax import traverse_util

    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(flat: Tree) -> Tree:
    """Turns names such as "head/kernel" back into a nested dict."""
    from flax import traverse_util

    return traverse_util.unflatten_dict(flat, sep="/")


def pack(variables: Tree) -> Tree:
    """Turns variables into one tree for a file: the parameters, and beside them "batch_stats" if there are any."""
    return {**variables["params"], **{name: tree for name, tree in variables.items() if name != "params"}}


def unpack(tree: Tree) -> Tree:
    """Undoes `pack`; numbers kept in half precision become float32."""
    wide = {
        name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in flatten(tree).items()
    }
    params = unflatten(wide)
    stats = {"batch_stats": params.pop("batch_stats")} if "batch_stats" in params else {}
    return {"params": params} | stats


def match(params: Tree, expected: Tree, source: str) -> Tree:
    """Returns a loaded tree if it fits the arrays, or shapes, of a model; else DistillError names all differences."""
    have, want = flatten(params), flatten(expected)
    problems = [f"missing {name}" for name in want.keys() - have.keys()]
    problems += [f"surplus {name}" for name in have.keys() - want.keys()]
    problems += [
        f"{name} has shape {have[name].shape}, not {want[name].shape}"
        for name in have.keys() & want.keys()
        if have[name].shape != want[name].shape
    ]
    if problems:
        raise DistillError(f"{source} does not fit the model: {'; '.join(sorted(problems))}.")
    return params


def write_atomically(path: File, content: bytes | memoryview, keep: Path | None = None) -> None:
    """Writes a file so that a reader sees the old or the new one, never a part; `keep` names the old; DistillError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if keep is not None and path.is_file():
            os.replace(path, keep)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DistillError(
            f"cannot write {path} ({error.strerror}); make room there, make the folder writable or name another."
        ) from error


def unfinished(folder: Path, seconds: float = 0) -> list[Path]:
    """What kills left in a folder in the middle of `write_atomically`, and nobody has written to for so long."""
    paths = []
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its process has just finished it
            if not seconds or time.time() - path.stat().st_mtime > seconds:
                paths.append(path)
    return paths


def _read(path: File, only: str | None = None) -> dict[str, np.ndarray]:
    try:
        if not Path(path).is_file():
            raise DistillError(f"no checkpoint at {path}; check the path.")
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise DistillError(f"{path} is truncated or not an .npz; get it again.")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                _check_size(path, file.zip)
                if not file.files:
                    raise ValueError("it holds nothing")
                stream.seek(-12 - len(file.zip.comment), os.SEEK_END)  # to their number, which zipfile ignores
                if int.from_bytes(stream.read(2), "little") != len(file.zip.infolist()):
                    raise ValueError("members are missing")
                arrays = {name: file[name] for name in file.files if only in (None, name)}
    except DistillError:
        raise
    except OSError as error:
        raise DistillError(f"cannot read {path} ({error.strerror}); check the path and its permissions.") from error
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds for damaged files
        if "pickle" in str(error):
            raise DistillError(f"{path} holds pickled objects, which are never loaded; get a plain .npz.") from error
        raise DistillError(f"{path} is a damaged .npz ({str(error) or type(error).__name__}); get it again.") from error
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray):  # what has no header of an array is given as bytes
            raise DistillError(f"{path}: {name} is no array; get a plain .npz.")
    return arrays


def _check_size(path: File, archive: zipfile.ZipFile) -> None:
    """Raises DistillError before an archive expands to many times its size: trained numbers hardly compress."""
    members = archive.infolist()
    whole, packed = sum(member.file_size for member in members), sum(member.compress_size for member in members)
    if whole > EXPANDED + MOST_EXPANSION * packed:
        raise DistillError(
            f"{path} would expand from {packed / 2**20:.1f} to {whole / 2**20:,.0f} MiB, which no checkpoint does; get "
            "another file."
        )

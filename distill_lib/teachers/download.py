"""Large .npz files over https: resumed after a cut, checked before they get their name, and the same ones ever after.

A file that is under way is kept beside its place as NAME.part. What a first use saw is recorded in a lock file, a JSON
object of names and SHA-256 digests. Processes wait for each other by a file lock (`fcntl.flock`), so that two of them
neither write into one .part nor lose each other's entries; where the system or the file system has none, the lock file
is still read again right before it is written, and every write is atomic.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from distill_lib import weights
from distill_lib.errors import DistillError

TIMEOUT = 20  # seconds without an answer or a byte
_SCHEMES = frozenset({"https"})
_CHUNK = 2**20


def fetch(url: str, path: Path, accept: Callable[[Path], object], *, by_hand: Path | None = None) -> Path:
    """Downloads a file, or the rest of it, and gives it its name once it is whole and accepted.

    Args:
        url: an https address.
        path: where the file goes; if it exists by the time that it is this process's turn, nothing is downloaded.
        accept: is called with the path of the whole download before that gets its name; may refuse it by raising.
        by_hand: folder that errors ask the user to put the file into; None is that of `path`.

    Returns:
        `path`.

    Raises:
        DistillError: if the address is not https or leads elsewhere, the server cannot be reached, refuses or ends too
            early (call again to go on), what came is no .npz, or the file cannot be written.
    """
    _check_scheme(url)
    instead = _by_hand(by_hand or path.parent, path.name)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path):
            if not path.exists():
                _complete(url, part)
                accept(part)
                os.replace(part, path)
    except urllib.error.HTTPError as error:
        error.close()
        raise DistillError(f"{url} was refused ({error.code} {error.reason}); {instead}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DistillError(f"{url} cannot be downloaded ({reason}); call again to go on, or {instead}") from error
    except OSError as error:
        raise DistillError(f"cannot write {part} ({error.strerror}); make room, or name another folder.") from error
    return path


def check_digest(name: str, path: Path, lock: Path) -> str:
    """Compares a file with what was recorded at the first use of its name, or records it.

    Args:
        name: what the file is known as.
        path: the file.
        lock: the lock file.

    Returns:
        The file's SHA-256.

    Raises:
        DistillError: if the digests differ, with both of them; if a file whose name is new is no whole .npz; or if the
            lock file is damaged or cannot be written.
    """
    digest = weights.sha256(path)
    recorded = _read_lock(lock).get(name)
    if recorded is None:
        if (damaged := _damaged(path)) is not None:
            raise DistillError(f"{path} is not a whole .npz ({damaged} is damaged); get the file again.")
        with exclusive(lock):
            entries = _read_lock(lock)  # anew: another process may have written since
            recorded = entries.setdefault(name, digest)
            weights.write_atomically(lock, (json.dumps(entries, indent=2, sort_keys=True) + "\n").encode())
    if digest != recorded:
        raise DistillError(
            f"{path} has SHA-256 {digest}, but {recorded} was recorded for {name}; if the new file is the right one, "
            f"remove {name} from {lock}, else remove the file, and call again."
        )
    return digest


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lets one process at a time work on `path`, where the system can; DistillError if its folder is not writable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guard = open(path.with_name(f".{path.name}.guard"), "a")  # noqa: SIM115  # closed below
    except OSError as error:
        raise DistillError(f"cannot write into {path.parent} ({error.strerror}); name another folder.") from error
    with guard:
        with contextlib.suppress(ImportError, OSError):  # Windows; file systems without locks
            import fcntl

            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process that works on {path}", file=sys.stderr, flush=True)
                fcntl.flock(guard, fcntl.LOCK_EX)
        yield


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never away from https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _check_scheme(newurl)
        except DistillError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise DistillError(f"{url} is not an https address; nothing is downloaded from it.")


def _by_hand(folder: Path, name: str) -> str:
    return f"get the file by other means and put it into {folder} as {name}."


def _complete(url: str, part: Path) -> None:
    """Leaves the whole file in `part`, going on after what is there already."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if not have or error.code != 416:  # Range Not Satisfiable: nothing comes after what is there
            raise
        error.close()
        if _total(error.headers, "Content-Range") != have:
            part.unlink()
            return _complete(url, part)
    else:
        with response:
            _append(response, part, have)
    _check_whole(url, part)


def _append(response: Any, part: Path, have: int) -> None:
    continued = re.match(rf"bytes {have}-", response.headers.get("Content-Range") or "")
    if response.status != 206 or not continued:
        if response.status == 206:
            part.unlink(missing_ok=True)
            raise urllib.error.URLError("the server sent another part of the file than was asked for")
        have = 0  # this server sends the whole file whatever was asked for
    total = _total(response.headers, "Content-Range" if have else "Content-Length")
    with open(part, "ab" if have else "wb") as file:
        _copy(response, file, part.name.removesuffix(".part"), have, total)
    size = part.stat().st_size
    if total is not None and size != total:
        raise urllib.error.URLError(f"it ended after {size} of {total} bytes")


def _total(headers: Any, field: str) -> int | None:
    match = re.search(r"(\d+)$", headers.get(field) or "")
    return int(match[1]) if match else None


def _copy(response: Any, file: BinaryIO, label: str, have: int, total: int | None) -> None:
    from tqdm import tqdm

    size = f"{total} bytes" if total is not None else "of unknown size"
    print(f"downloading {label}, {size}{f', from byte {have} on' if have else ''}", file=sys.stderr, flush=True)
    with tqdm(total=total, initial=have, desc=label, unit="B", unit_scale=True, disable=None) as bar:
        for chunk in _chunks(response):
            file.write(chunk)
            bar.update(len(chunk))
    file.flush()
    os.fsync(file.fileno())


def _chunks(response: Any) -> Iterator[bytes]:
    """What comes, as it comes; an error of the network is told apart from one of the disk."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise urllib.error.URLError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _check_whole(url: str, part: Path) -> None:
    if (damaged := _damaged(part)) is not None:
        part.unlink()
        raise DistillError(f"what {url} sent is not a whole .npz ({damaged} is damaged); call again to start anew.")


def _damaged(path: Path) -> str | None:
    """Name of the first array whose checksum is wrong, or of the file if it is no archive at all."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):  # NotImplementedError is a RuntimeError
        return path.name


def _read_lock(lock: Path) -> dict[str, str]:
    if not lock.exists():
        return {}
    try:
        entries = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = None
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise DistillError(f"{lock} is not a readable lock file; repair it, or remove it to record all files anew.")
    return entries

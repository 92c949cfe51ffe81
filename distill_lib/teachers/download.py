"""Large .npz files over https: checked before they get their name, and the same ones ever after.

Pooch downloads into a temporary file beside the place, which is removed where anything goes wrong; after one more try,
the next call starts anew. What a first use saw is recorded in a lock file, a JSON object of names and SHA-256 digests.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_lib import weights
from distill_lib.errors import DistillError

TIMEOUT = 20  # seconds without an answer or a byte
PATIENCE, LEAST_SPEED = 60, 50_000  # seconds from which on the mean bytes a second have to be as many
MOST_BYTES = 4 * 2**30  # three times the largest file, so that no download takes longer than a day


def fetch(url: str, path: Path, accept: Callable[[Path], object], *, by_hand: Path | None = None) -> Path:
    """Downloads a file to a path, which is returned; one that is there stays.

    It gets its name once it is whole and `accept`, which is called with the path of the download, has not raised.
    Raises DistillError if the server cannot be reached, refuses, leads nowhere, is too slow, ends too early or sends
    more than `MOST_BYTES`, or if the file cannot be written; it asks the user to put the file into `by_hand`, by
    default the path's folder.
    """
    import pooch

    def download(url: str, target: Any, _: Any) -> None:
        _download(url, target)
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
    """Compares a file's SHA-256 with what the lock recorded at the first use of its name.

    Raises DistillError if they differ, with both of them; if a file whose name is new is no whole .npz; or if the lock
    file is damaged or cannot be written.
    """
    digest, entries = weights.sha256(path), _read_lock(lock)
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


def _download(url: str, target: str) -> None:
    """Writes what a server sends; raises OSError or ValueError."""
    import requests
    import urllib3
    from tqdm import tqdm

    began = time.monotonic()
    with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as answer:
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length", 0)) or None
        show = {"unit": "B", "unit_scale": True, "disable": not sys.stderr.isatty()}
        with open(target, "wb") as file, tqdm(total=size, **show) as progress:
            try:
                while part := answer.raw.read1(2**20):  # whatever is there: to wait for more could take for ever
                    file.write(part)
                    progress.update(len(part))
                    seconds, received = time.monotonic() - began, file.tell()
                    if received > MOST_BYTES:
                        raise OSError(f"there are more than {MOST_BYTES} bytes")
                    if seconds > PATIENCE and received < LEAST_SPEED * seconds:
                        raise OSError(f"{received} bytes came in {seconds:.0f} seconds")
            except urllib3.exceptions.HTTPError as error:
                raise requests.ConnectionError(error) from error  # which is tried again


def _reason(error: BaseException) -> str:
    """What went wrong first, which requests wraps several times."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__


def _read_lock(lock: Path) -> dict[str, str]:
    try:
        entries = json.loads(lock.read_text(encoding="utf-8")) if lock.exists() else {}
    except (OSError, ValueError):
        entries = None
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise DistillError(f"{lock} is not a readable lock file; repair it, or remove it to record all files anew.")
    return entries

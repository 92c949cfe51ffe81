"""Downloads: whole or not there, resumed after a cut, the same file ever after, and what fails says what to do.

A server on this machine takes the publisher's place; plain http is allowed for it alone.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from distill_lib.errors import DistillError
from distill_lib.teachers import download

NAME = "R50x1_224"
FILE = "R50x1_224.npz"


def npz(**arrays: object) -> bytes:
    """An .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


CONTENT = npz(a=np.arange(5000.0))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """What the test server sends, how badly, and the ranges that it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.part = folder, folder / FILE, folder / f"{FILE}.part"
        self.lock = folder.with_name("lock.json")
        self.content, self.ranges, self.cut, self.status, self.told = CONTENT, True, len(CONTENT), 200, True
        self.stall = 0.0
        self.redirect = ""
        self.asked: list[str | None] = []
        self.url = ""

    def get(self) -> Path:
        """Downloads the file as `published.resolve` does."""
        return download.fetch(self.url, self.path, lambda part: download.check_digest(NAME, part, self.lock))


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends `state.content`, stopping after `state.cut` bytes of an answer."""

    def __init__(self, state: Server, *args: object) -> None:
        self.state = state
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        state, asked = self.state, self.headers["Range"]
        state.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
        total, partial = len(state.content), bool(asked and state.ranges)
        status = state.status if state.status != 200 else 416 if start >= total else 206 if partial else 200
        if state.redirect and self.path != "/moved":
            status = 302
        self.send_response(status)
        if status == 302:
            self.send_header("Location", state.redirect)
        if partial:
            self.send_header(
                "Content-Range", f"bytes */{total}" if status == 416 else f"bytes {start}-{total - 1}/{total}"
            )
        body = state.content[start:] if status in (200, 206) else b""
        if state.told:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: state.cut])
        if state.stall:
            self.wfile.flush()
            threading.Event().wait(state.stall)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server in a thread."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_SCHEMES", frozenset({"http"}))
    state = Server(tmp_path / "cache")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, state)) as running:
        state.url = f"http://127.0.0.1:{running.server_port}/{FILE}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def files(folder: Path) -> list[str]:
    """Names in a folder, without those that only hold processes apart."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".guard")


def error_of(call: Callable[[], object]) -> str:
    """The one line that a call fails with."""
    with pytest.raises(DistillError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_download_is_kept_and_recorded(server: Server) -> None:
    """The second call asks no server."""
    assert server.get() == server.get() == server.path
    assert server.path.read_bytes() == CONTENT
    assert files(server.folder) == [FILE] and server.asked == [None]
    assert json.loads(server.lock.read_text()) == {NAME: DIGEST}


def test_a_cut_download_goes_on_where_it_stopped(server: Server) -> None:
    """Truncated twice: each time what came is kept, nothing gets the file's name and nothing is recorded."""
    server.cut = 10_000
    for have in (10_000, 20_000):
        message = error_of(server.get)
        assert f"it ended after {have} of {len(CONTENT)} bytes" in message and "call again to go on" in message
        assert files(server.folder) == [f"{FILE}.part"] and server.part.stat().st_size == have
    assert not server.lock.exists()
    server.cut = len(CONTENT)
    assert server.get().read_bytes() == CONTENT
    assert server.asked == [None, "bytes=10000-", "bytes=20000-"] and files(server.folder) == [FILE]


def test_a_server_without_ranges_starts_anew(server: Server) -> None:
    """Its whole file must not be appended to the part."""
    server.ranges, server.cut = False, 10_000
    error_of(server.get)
    server.cut = len(CONTENT)
    assert server.get().read_bytes() == CONTENT


@pytest.mark.parametrize("have", [len(CONTENT) + 1, len(CONTENT)])
def test_a_part_that_the_server_cannot_go_on_with(server: Server, have: int) -> None:
    """The whole file already: nothing is sent again. More than the file: it is another one, and starts anew."""
    server.folder.mkdir()
    server.part.write_bytes((CONTENT + b"x")[:have])
    assert server.get().read_bytes() == CONTENT
    assert server.asked == ([f"bytes={have}-"] if have == len(CONTENT) else [f"bytes={have}-", None])


def test_a_part_of_another_file_is_found_out(server: Server) -> None:
    """The checksums inside the .npz, since no digest is known at the first use."""
    server.folder.mkdir()
    server.part.write_bytes(bytes(30_000))
    assert "not a whole .npz" in error_of(server.get)
    assert files(server.folder) == []
    assert server.get().read_bytes() == CONTENT


def test_a_server_that_stalls_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came by then is kept."""
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.cut, server.stall = 10_000, 1
    assert "timed out" in error_of(server.get)
    assert server.part.stat().st_size == 10_000


def test_a_page_instead_of_the_file_is_refused(server: Server) -> None:
    """Also without a length, where a cut cannot be told from the end."""
    server.content, server.told = b"<html>sign in</html>", False
    assert "not a whole .npz" in error_of(server.get)
    assert files(server.folder) == [] and not server.lock.exists()


def test_a_missing_file_says_so(server: Server) -> None:
    server.status = 404
    message = error_of(server.get)
    assert (
        f"{server.url} was refused (404 Not Found)" in message and f"put it into {server.folder} as {FILE}" in message
    )


def test_offline_the_error_says_which_file_goes_where(server: Server) -> None:
    """Nothing listens at port 1."""
    server.url = f"http://127.0.0.1:1/{FILE}"
    message = error_of(server.get)
    assert f"{server.url} cannot be downloaded (" in message
    assert f"get the file by other means and put it into {server.folder} as {FILE}." in message
    assert files(server.folder) == []


def test_redirects_are_followed(server: Server) -> None:
    server.redirect = "/moved"
    assert server.get().read_bytes() == CONTENT


def test_nothing_is_asked_for_without_encryption(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by an address in the table nor by a redirect."""
    server.redirect = "ftp://127.0.0.1/moved"
    assert "ftp://127.0.0.1/moved is not an https address" in error_of(server.get)
    monkeypatch.undo()
    assert frozenset({"https"}) == download._SCHEMES
    fetch = functools.partial(download.fetch, server.url, server.path, print)
    assert "is not an https address; nothing is downloaded" in error_of(fetch)
    follow = functools.partial(download._SafeRedirects().redirect_request, None, io.BytesIO(), 302, "Found", {})
    assert "http://there is not an https address" in error_of(lambda: follow("http://there"))
    assert len(server.asked) == 1


def test_a_full_disk_keeps_the_part(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", no_space)
    assert "No space left on device" in error_of(server.get)
    assert files(server.folder) == [f"{FILE}.part"]


def test_a_folder_that_cannot_be_made_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server.path = tmp_path / "file" / "folder" / FILE
    message = error_of(server.get)
    assert "cannot write" in message and "name another folder" in message
    assert server.asked == []


def test_two_processes_download_once(server: Server) -> None:
    """They would write into one part; the second waits, and finds the file there."""
    threads = [threading.Thread(target=server.get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None] and server.path.read_bytes() == CONTENT


def test_another_download_than_recorded_is_refused(server: Server) -> None:
    """Both digests are named and no file appears; with the entry removed it is accepted without another download."""
    server.lock.write_text(json.dumps({NAME: "0" * 64}))
    message = error_of(server.get)
    assert DIGEST in message and "0" * 64 in message and f"remove {NAME} from {server.lock}" in message
    assert files(server.folder) == [f"{FILE}.part"] and json.loads(server.lock.read_text()) == {NAME: "0" * 64}
    server.lock.unlink()
    assert server.get() == server.path
    assert server.asked == [None, f"bytes={len(CONTENT)}-"]


def test_no_entry_is_lost_when_many_write_at_once(tmp_path: Path) -> None:
    path, lock = tmp_path / FILE, tmp_path / "lock.json"
    path.write_bytes(CONTENT)
    names = [f"name{number}" for number in range(16)]
    threads = [threading.Thread(target=download.check_digest, args=(name, path, lock)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(lock.read_text()) == dict.fromkeys(names, DIGEST)


@pytest.mark.parametrize("text", ["{", "[]", '{"R50x1_224": 3}'])
def test_a_damaged_lock_is_told_and_kept(tmp_path: Path, text: str) -> None:
    path, lock = tmp_path / FILE, tmp_path / "lock.json"
    path.write_bytes(CONTENT)
    lock.write_text(text)
    message = error_of(lambda: download.check_digest(NAME, path, lock))
    assert f"{lock} is not a readable lock file" in message
    assert lock.read_text() == text

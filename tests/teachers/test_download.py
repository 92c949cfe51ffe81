"""Downloads: whole or not there, the same file ever after, and what fails says what to do.

A server on this machine takes the publisher's place.
"""

from __future__ import annotations

import functools
import gc
import http.server
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import pooch
import pytest
from checkpoint_files import CONTENT, DIGEST, FILE, NAME

from distill_lib.errors import DistillError
from distill_lib.teachers import published


class Server:
    """What the test server sends, how badly, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.lock = folder, folder / FILE, folder.with_name("lock.json")
        self.content, self.cut, self.status, self.told = CONTENT, len(CONTENT), 200, True
        self.stall, self.asked, self.url, self.redirect = 0.0, 0, "", ""
        self.recovers = False

    def get(self) -> Path:
        """Downloads the file as `published.resolve` does."""
        return published.fetch(self.url, self.path, lambda whole: published.check_digest(NAME, whole, self.lock))


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends `state.content`, stopping after `state.cut` bytes of an answer."""

    def __init__(self, state: Server, *args: object) -> None:
        self.state = state
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        state = self.state
        state.asked += 1
        self.send_response(302 if state.redirect and self.path != "/moved" else state.status)
        self.send_header("Location", state.redirect)
        if state.told:
            self.send_header("Content-Length", str(len(state.content)))
        self.end_headers()
        self.wfile.write(state.content[: state.cut])
        if state.recovers:
            state.cut = len(state.content)
        if state.stall:
            self.wfile.flush()
            threading.Event().wait(state.stall)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server in a thread, which is asked again without a pause."""
    gc.freeze()  # what is there already, which takes long to look through
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(pooch.core.time, "sleep", lambda _: None)
    state = Server(tmp_path / "cache")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, state)) as running:
        state.url = f"http://127.0.0.1:{running.server_port}/{FILE}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # pooch leaves the connections of refused answers to it
    gc.unfreeze()


def files(folder: Path) -> list[str]:
    """Names in a folder, hidden ones too; none where there is no folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


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
    assert files(server.folder) == [FILE] and server.asked == 1
    assert json.loads(server.lock.read_text()) == {NAME: DIGEST}


def test_a_cut_download_is_tried_once_more_and_leaves_nothing(server: Server) -> None:
    """Nothing gets the file's name and nothing is recorded; the next call starts anew."""
    server.cut = 10_000
    assert "10000 bytes read" in (message := error_of(server.get)) and "call again" in message
    assert server.asked == 2 and files(server.folder) == [] and not server.lock.exists()
    server.recovers = True
    assert server.get().read_bytes() == CONTENT and server.asked == 4


def test_a_server_that_stalls_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "TIMEOUT", 0.2)
    server.cut, server.stall = 10_000, 1
    assert "timed out" in error_of(server.get)
    assert files(server.folder) == []


def test_a_page_instead_of_the_file_is_refused(server: Server) -> None:
    """Also without a length, where a cut cannot be told from the end."""
    server.content, server.told = b"<html>sign in</html>", False
    assert "not a whole .npz" in error_of(server.get)
    assert files(server.folder) == [] and not server.lock.exists()


def test_a_missing_file_says_so(server: Server) -> None:
    server.status = 404
    message = error_of(server.get)
    assert (
        f"{server.url} cannot be downloaded" in message
        and "(404 Client Error: Not Found" in message
        and f"put it into {server.folder} as {FILE}" in message
    )


def test_offline_the_error_says_which_file_goes_where(server: Server) -> None:
    """Nothing listens at port 1."""
    server.url = f"http://127.0.0.1:1/{FILE}"
    message = error_of(server.get)
    assert f"{server.url} cannot be downloaded to {server.path} ([Errno 111] Connection refused)" in message
    assert message.endswith(f"get the file by other means and put it into {server.folder} as {FILE}.")
    assert files(server.folder) == []


@pytest.mark.parametrize("place", ["http://[::1", "http://a..b/", "http://x:99999/", "ftp://x/y", "\xff", "/loop"])
def test_a_redirect_to_nonsense_is_told(server: Server, place: str) -> None:
    server.redirect = place
    assert f"{server.url} cannot be downloaded to {server.path} (" in error_of(server.get)
    assert files(server.folder) == []


def test_redirects_are_followed(server: Server) -> None:
    server.redirect = "/moved"
    assert server.get().read_bytes() == CONTENT


def test_a_full_disk_is_told_and_leaves_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", no_space)
    assert "No space left on device" in error_of(server.get)
    assert files(server.folder) == []


def test_a_folder_that_cannot_be_made_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server.path = tmp_path / "file" / "folder" / FILE
    assert "Not a directory" in error_of(server.get)
    assert server.asked == 0


def test_others_may_read_what_was_downloaded(server: Server) -> None:
    """A group shares a folder of checkpoints."""
    assert server.get().stat().st_mode & 0o777 == 0o644


def test_two_that_download_at_once_get_the_whole_file(server: Server) -> None:
    """Each moves its own temporary file to the name."""
    server.get().unlink()
    with futures.ThreadPoolExecutor(4) as threads:
        assert {path.read_bytes() for path in threads.map(lambda _: server.get(), range(4))} == {CONTENT}
    assert files(server.folder) == [FILE]


def test_another_download_than_recorded_is_refused(server: Server) -> None:
    """Both digests are named and no file appears; with the entry removed it is accepted."""
    server.lock.write_text(json.dumps({NAME: "0" * 64}))
    message = error_of(server.get)
    assert DIGEST in message and "0" * 64 in message and f"remove {NAME} from {server.lock}" in message
    assert files(server.folder) == [] and json.loads(server.lock.read_text()) == {NAME: "0" * 64}
    server.lock.unlink()
    assert server.get() == server.path and server.asked == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"R50x1_224": 3}'])
def test_a_damaged_lock_is_told_and_kept(tmp_path: Path, text: str) -> None:
    path, lock = tmp_path / FILE, tmp_path / "lock.json"
    path.write_bytes(CONTENT)
    lock.write_text(text)
    message = error_of(lambda: published.check_digest(NAME, path, lock))
    assert f"{lock} is not a readable lock file" in message
    assert lock.read_text() == text

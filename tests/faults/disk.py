"""A file system that goes wrong at one call: a kill, a full disk, or another process that comes at that moment."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

GROWING = ("open", "write", "fsync", "mkdir", "rename")  # what a full disk refuses


class Killed(BaseException):
    """Ends a process, as far as files are concerned: whatever it does to them afterwards raises this again."""


class Disk:
    """Counts the calls that change files below a folder, and has a fault strike at one of them.

    `at` counts from 1; 0 never strikes. What `strike` raises is raised by the call; of a write half has been done then.
    `kinds` are the calls that count, all of them where there are none.
    """

    def __init__(self, folder: Path, at: int, strike: Callable[[], None], kinds: tuple[str, ...] = ()) -> None:
        """Counts nothing yet."""
        self.folder, self.at, self.strike, self.kinds, self.calls = str(folder), at, strike, kinds, 0

    def call(self, kind: str) -> None:
        """Counts a call, and lets the fault strike if it is its turn."""
        if self.kinds and kind not in self.kinds:
            return
        self.calls += 1
        if self.calls == self.at:
            self.strike()

    def holds(self, path: object) -> bool:
        """Whether a path lies below the folder."""
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.folder)

    def patched(self, module: Any, name: str, kind: str) -> Any:
        """A function of `os` whose first argument is a path, with the fault before it."""
        original = getattr(module, name)

        def faulty(path: Any, *rest: Any, **named: Any) -> Any:
            if self.holds(path) and not (kind == "mkdir" and os.path.isdir(path)):
                self.call(kind)
            return original(path, *rest, **named)

        return mock.patch.object(module, name, faulty)

    def opened(self, path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        """`open`, whose files count what is written to them."""
        if not self.holds(path) or not set(mode) & set("wax+"):
            return _OPEN(path, mode, *rest, **named)
        self.call("open")
        return _File(_OPEN(path, mode, *rest, **named), self)

    def opened_low(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        """`os.open`, where it may make a file."""
        if self.holds(path) and flags & os.O_CREAT:
            self.call("open")
        return _OPEN_LOW(path, flags, *rest, **named)

    def synced(self, number: int) -> None:
        """`os.fsync`."""
        self.call("fsync")
        _FSYNC(number)


_OPEN, _OPEN_LOW, _FSYNC = builtins.open, os.open, os.fsync


class _File:
    """A file that is written to."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, content: Any) -> int:
        try:
            self._disk.call("write")
        except BaseException:
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            raise
        return int(self._file.write(content))

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def faulty(disk: Disk) -> Iterator[Disk]:
    """Has all calls of this process go through the disk."""
    with contextlib.ExitStack() as patches:
        for name, kind in (("replace", "rename"), ("rename", "rename"), ("unlink", "unlink"), ("mkdir", "mkdir")):
            patches.enter_context(disk.patched(os, name, kind))
        for module, name, function in (
            (builtins, "open", disk.opened),
            (io, "open", disk.opened),
            (os, "open", disk.opened_low),
            (os, "fsync", disk.synced),
        ):
            patches.enter_context(mock.patch.object(module, name, function))
        yield disk


def killing(folder: Path, at: int) -> Disk:
    """A disk whose process is dead from a call on."""

    def die() -> None:
        disk.at = disk.calls + 1  # `finally` and `except` of a killed process do not run: nor may they change anything
        raise Killed

    disk = Disk(folder, at, die)
    return disk


def full(folder: Path, at: int, number: int = errno.ENOSPC) -> Disk:
    """A disk that is full from a call on; `number` is the error, or ENOSPC."""

    def refuse() -> None:
        disk.at = disk.calls + 1
        raise OSError(number, os.strerror(number))

    disk = Disk(folder, at, refuse, GROWING)
    return disk

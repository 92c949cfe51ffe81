"""What stops work at a call of the file system: kills, full disks, and a second process."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

from distill_lib.errors import command_line
from faults import disk
from faults.outcomes import LOST, OTHER, REFUSED, SAME, TRACEBACK, Table, outcome
from faults.work import Files, Work

REMEDY = "make room"


def whole(work: Work, root: Path) -> tuple[Files, dict[str, int]]:
    """What the work makes where nothing stops it, and its calls: all, and those that a full disk refuses."""
    work.begin(root)
    counts = {}
    for name, kinds in (("all", ()), ("growing", disk.GROWING)):
        folder = root / name
        work.begin(folder)
        counter = disk.Disk(folder, 0, lambda: None, kinds)
        with disk.faulty(counter):
            work.do(folder)
        counts[name] = counter.calls
    return work.made(folder), counts


def kills(work: Work, root: Path, expected: Files, calls: Iterable[int], table: Table, *, again: bool = False) -> None:
    """Kills the work at calls, the second time too if `again`, and goes on; none may take away what was saved."""
    most = 0
    for at in calls:
        folder = root / f"kill{at}{'again' * again}"
        work.begin(folder)
        for moment in [at, at % 7 + 1] if again else [at]:
            stopped(work, folder, moment)
        saved = work.saved(folder)
        ended, about = finished(work, folder, expected)
        if saved < most and not again:
            ended, about = LOST, f"{most} steps were saved before, and {saved} are there"
        most = max(most, saved)
        table.add("killed twice" if again else "killed at a call", work.name, ended, f"call {at}: {about}")


def stopped(work: Work, folder: Path, at: int) -> None:
    """Does the work, or goes on with it, and kills it at a call."""
    with contextlib.suppress(disk.Killed), disk.faulty(disk.killing(folder, at)):
        work.do(folder)


def finished(work: Work, folder: Path, expected: Files) -> tuple[str, str]:
    """What comes of going on; to be refused is to have lost the work."""
    ended, about = outcome(lambda: (work.do(folder), work.made(folder))[1], [expected])
    return (LOST if ended == REFUSED else ended), about


def full_disks(
    work: Work, root: Path, expected: Files, calls: Iterable[int], table: Table, *, number: int = errno.ENOSPC
) -> None:
    """A disk is full from a call on: one line that says so, with what to do; with room again the work goes on."""
    for at in calls:
        folder, said = root / f"{errno.errorcode[number]}{at}", io.StringIO()
        work.begin(folder)
        try:
            with disk.faulty(disk.full(folder, at, number)), contextlib.redirect_stderr(said):
                code = command_line(lambda _, folder=folder: work.do(folder))([])  # type: ignore[misc]
            right = code == 1 and said.getvalue().count("\n") == 1
            right = right and REMEDY in said.getvalue() and os.strerror(number) in said.getvalue()
            ended, about = (SAME, "") if right else (TRACEBACK, f"exit code {code}: {said.getvalue()}")
        except Exception as error:
            ended, about = TRACEBACK, repr(error)
        if ended == SAME:
            ended, about = finished(work, folder, expected)
        table.add(f"full disk ({errno.errorcode[number]})", work.name, ended, f"call {at}: {about}")


def second_process(work: Work, root: Path, expected: Files, calls: Iterable[int], table: Table) -> None:
    """Another process wants the same folder at a call of the first: it is refused, or finds the work done."""
    for at in calls:
        folder, came = root / f"second{at}", [(SAME, "")]
        work.begin(folder)

        counter = disk.Disk(folder, at, lambda: None)

        def come(folder: Path = folder, came: list = came, counter: disk.Disk = counter) -> None:
            counter.kinds = ("none",)  # its own calls are not counted
            with mock.patch("os.getpid", return_value=os.getpid() + 1):  # names of unfinished files have it
                came[0] = outcome(lambda: (work.do(folder), complete(work.made(folder)))[1], [expected])

        counter.strike = come
        with disk.faulty(counter):
            ended, about = finished(work, folder, expected)
        if came[0][0] in (OTHER, TRACEBACK):
            ended, about = came[0]
        table.add("second process at a call", work.name, ended, f"call {at}: {about}")


def complete(made: Files) -> Files:
    """Without the file that the process in whose call we are is writing."""
    return {name: content for name, content in made.items() if not name.endswith(".tmp")}


def child(act: Callable[[], object]) -> int:
    """Starts a process of its own that does this and nothing else; its number.

    To be called before this process has begun with JAX, whose threads do not survive a fork.
    """
    if number := os.fork():
        return number
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def really_killed(work: Work, folder: Path, at: int) -> bool:
    """Does the work in a process that gets SIGKILL at a call; whether it got as far."""
    work.begin(folder)
    killing = disk.Disk(folder, at, lambda: os.kill(os.getpid(), signal.SIGKILL))

    def act() -> None:
        with disk.faulty(killing):
            work.do(folder)

    return waited(child(act)) == -signal.SIGKILL


def really_together(work: Work, folder: Path, apart: float) -> list[int]:
    """Two processes begin the same work so many seconds apart; their exit codes, 3 where it was refused."""
    work.begin(folder)

    def act() -> None:
        ended, about = outcome(lambda: work.do(folder), [None])
        if ended == REFUSED:
            os._exit(3)
        assert ended == SAME, about

    first = child(act)
    time.sleep(apart)
    second = child(act)
    return [waited(first), waited(second)]


def waited(number: int) -> int:
    """The exit code of a child, or the signal that killed it, below zero."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

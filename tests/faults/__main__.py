"""`nox -s faults`: all faults, their table and its record; `-- long` is more of them, `--check` writes no record."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tiny

from benchmarks import timing
from distill_lib.errors import DistillError, Parser, command_line
from distill_lib.report import benchmarks
from faults import damage, stops
from faults.outcomes import Table
from faults.work import Files, Work, works

SHORT = {"kills": 12, "disks": 8, "seconds": 6, "damage": 40, "processes": 1}  # of each work or file, at most
LONG = {"kills": 10**6, "disks": 10**6, "seconds": 10**6, "damage": 2000, "processes": 6}
FULL = (errno.ENOSPC, errno.EDQUOT)


@command_line
def main(arguments: Sequence[str] | None = None) -> None:
    """Tries all faults; DistillError if one of them lost something, changed it unseen, or ended in a traceback."""
    parser = Parser(prog="nox -s faults --")
    parser.add_argument("length", nargs="?", default="short", choices=("short", "long"))
    parser.add_argument("--check", action="store_true", help="write no record")
    options = parser.parse_args(arguments)
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    logging.getLogger("distill_lib").setLevel(logging.ERROR)
    began, table = time.perf_counter(), Table(lambda line: print(line, flush=True))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/programs")
        try_everything(Path(folder), LONG if options.length == "long" else SHORT, table)
    rows = [row | {"form": options.length} for row in table.rows()]
    print(benchmarks.as_text(rows))
    print(f"{sum(row['cases'] for row in rows)} cases in {time.perf_counter() - began:.0f} s")
    if table.bad():
        raise DistillError(f"{table.bad()} cases lost something, changed it unseen, or ended in a traceback.")
    if not options.check:
        print(timing.write("faults", rows))


def try_everything(root: Path, count: dict[str, int], table: Table) -> None:
    """All faults; those of processes first, since what has begun with JAX cannot be forked."""
    teacher, trained = root / "teacher.npz", root / "trained"
    tiny.register()
    stops.waited(stops.child(lambda: tiny.write_teacher(teacher)))
    training = works(teacher, trained)[0]
    apart = processes(training, root / "processes", count["processes"])
    training.do(trained)
    for work in works(teacher, trained):
        folder = root / work.name.replace(" ", "_")
        expected, calls = stops.whole(work, folder)
        everywhere, growing = calls["all"], calls["growing"]
        stops.kills(work, folder, expected, spread(everywhere, count["kills"]), table)
        stops.kills(work, folder, expected, spread(everywhere, count["kills"] // 3), table, again=True)
        for number in FULL:
            stops.full_disks(work, folder, expected, spread(growing, count["disks"]), table, number=number)
        stops.second_process(work, folder, expected, spread(everywhere, count["seconds"]), table)
    settle(apart, training, training.made(trained), table)
    damages(root, works(teacher, trained), count["damage"], table)


def spread(calls: int, count: int) -> list[int]:
    """At most so many of the numbers from 1 to `calls`, evenly spread."""
    count = min(calls, count)
    return sorted({1 + (calls - 1) * number // max(count - 1, 1) for number in range(count)})


def processes(work: Work, root: Path, count: int) -> list[tuple[str, Path]]:
    """Kills real processes, and starts real ones together; what they were, and where what they left lies."""
    left = []
    for at in spread(40, 2 * count):
        folder = root / f"kill{at}"
        assert stops.really_killed(work, folder, at), f"the process was done before call {at}"
        left.append(("SIGKILL at a call", folder))
    for number in range(count):
        folder = root / f"together{number}"
        codes = stops.really_together(work, folder, number * 0.5)
        assert set(codes) <= {0, 3} and 0 in codes, codes
        left.append(("two processes at once", folder))
    return left


def settle(left: list[tuple[str, Path]], work: Work, expected: Files, table: Table) -> None:
    """What becomes of what processes left."""
    for fault, folder in left:
        table.add(fault, work.name, *stops.finished(work, folder, expected))


def damages(root: Path, made: list[Work], cases: int, table: Table) -> None:
    """Damages one file of each kind that is kept."""
    training, labels = made[0], made[2]
    stored = root / "stored"
    labels.do(stored)
    for at in itertools.count(20):  # until there are two checkpoints, and not one that is being written
        begun = root / f"begun{at}"
        stops.stopped(training, begun, at)
        if len(list(begun.glob("*/*/checkpoint*"))) == 2:
            break
    folders = [next(place.glob("*/*")) for place in (begun, root / "trained")]
    for each in damage.stored_files(*folders, stored / "labels", root / "pictures"):
        damage.try_all(each, cases, table)


if __name__ == "__main__":
    sys.exit(main())

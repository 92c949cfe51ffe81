"""Faults on purpose are noticed where work is careless, and only there; `nox -s faults` tries that of the library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import damage, stops
from faults.outcomes import LOST, OTHER, REFUSED, SAME, TRACEBACK, Table
from faults.work import Files, Work

from distill_lib import weights
from distill_lib.errors import DistillError

CONTENT = b"0123456789"


def made(root: Path) -> Files:
    """All files."""
    return {path.name: path.read_bytes() for path in root.glob("*") if not path.name.startswith(".")}


def saved(root: Path) -> int:
    """How many files are whole."""
    return sum(content == CONTENT for content in made(root).values())


def careful(root: Path) -> None:
    """Two files, each there or not, of which whole ones are left alone."""
    for name in ("a", "b"):
        if not (root / name).exists():
            weights.write_atomically(root / name, CONTENT)


def careless(root: Path) -> None:
    """Likewise, but a half-written file is taken for a whole one."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        if not (root / name).exists():
            with open(root / name, "wb") as file:
                file.write(CONTENT)


def forgetful(root: Path) -> None:
    """Takes away what was saved before it begins."""
    for name in ("a", "b"):
        (root / name).unlink(missing_ok=True)
    careful(root)


def hasty(root: Path) -> None:
    """Hides the cause of what stops it."""
    try:
        careful(root)
    except DistillError as error:
        raise ValueError("something went wrong") from error


def tried(work: Work, root: Path) -> dict[str, int]:
    """How often each outcome came, of kills, then full disks, then second processes, at all calls."""
    table = Table(lambda _: None)
    expected, calls = stops.whole(work, root)
    everywhere = range(1, calls["all"] + 1)
    stops.kills(work, root, expected, everywhere, table)
    stops.full_disks(work, root, expected, range(1, calls["growing"] + 1), table)
    stops.second_process(work, root, expected, everywhere, table)
    return {name: sum(row[name] for row in table.rows()) for name in (SAME, REFUSED, LOST, OTHER, TRACEBACK)}


def test_careful_work_loses_nothing(tmp_path: Path) -> None:
    """Whatever the call at which it is stopped; a full disk is told with its remedy."""
    counts = tried(Work("careful", careful, made, saved), tmp_path)
    assert counts[SAME] > 20 and sum(counts.values()) == counts[SAME]


@pytest.mark.parametrize(("do", "outcome"), [(careless, OTHER), (hasty, TRACEBACK), (forgetful, LOST)])
def test_careless_work_is_noticed(do: Callable[[Path], None], outcome: str, tmp_path: Path) -> None:
    """A half-written file, a full disk that nothing is said of, and what was saved and is gone."""
    begin = careful if do is forgetful else lambda root: None
    assert tried(Work("careless", do, made, saved, begin), tmp_path)[outcome] > 0


def test_damage_that_is_read_as_other_values_is_noticed(tmp_path: Path) -> None:
    """A plain file has no checksum; an archive of arrays has."""
    path, table = tmp_path / "plain", Table(lambda _: None)
    path.write_bytes(CONTENT)
    damage.try_all(damage.Stored("plain", path, path.read_bytes), 5, table)
    assert table.bad() > 10 and path.read_bytes() == CONTENT
    sound = Table(print)
    weights.save_npz(tmp_path / "a.npz", {"a": np.arange(100)})
    damage.try_all(damage.Stored("npz", tmp_path / "a.npz", lambda: damage.read_npz(tmp_path / "a.npz")), 20, sound)
    assert sound.bad() == 0 and sum(row["cases"] for row in sound.rows()) > 80


def test_an_error_of_several_lines_is_none_of_ours() -> None:
    """It counts as a traceback does."""

    def fail() -> None:
        raise DistillError("one\ntwo")

    assert stops.outcome(fail, [None])[0] == TRACEBACK

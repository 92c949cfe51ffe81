"""The students of the book's playground: trained weights in half precision beside their records, and an index of them.

From a shell, with a results folder in which these runs were repeated, their weights kept:

    python tests/makers/play_students.py AGAIN

A repetition has its run's recipe and seed, and the index says how well it did itself: rounding differs from one machine
and version to the next, and a run of a thousand steps magnifies it, so the record beside may have another accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib import records, weights
from distill_lib.errors import DistillError, command_line
from distill_lib.evaluation.evaluate import evaluate

FILE, INDEX = "student_f16.npz", "students_f16.json"
MAX_BYTES = 80_000
IMAGES = 2  # of the 10,000 test images may change sides by the rounding


def halved(directory: Path, results: Path) -> dict[str, Any]:
    """Writes one student in half precision beside the record of its run, and returns its row of the index.

    Raises:
        DistillError: if there is no such record, or the rounded student is too large or does worse than it should.
    """
    record = records.load(directory)
    place = results / directory.parent.name / directory.name
    if record is None or records.load(place) is None:
        raise DistillError(f"{directory} or {place} holds no finished run; only repetitions of recorded runs are kept.")
    tree = weights.load_npz(directory / "student.npz")
    halves = {name: np.asarray(value, np.float16) for name, value in weights.flatten(tree).items()}
    facts = weights.load_metadata(directory / "student.npz")
    path = place / FILE
    weights.save_npz(path, weights.unflatten(halves), facts)
    trained, rounded = record["result"]["test_top1"], float(evaluate(str(path), record["recipe"]["dataset"])["top1"])
    if path.stat().st_size > MAX_BYTES or abs(trained - rounded) > (IMAGES + 0.5) / 10_000:
        raise DistillError(f"{path}: {path.stat().st_size} bytes, top-1 {rounded:.4f} after {trained:.4f} in float32.")
    row = {"file": path.relative_to(results).as_posix(), "sha256": weights.sha256(path), "top1": round(rounded, 4)}
    row |= {"top1_float32": trained}
    return row | {name: record[name] for name in ("commit", "date", "device")}


@command_line
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python tests/makers/play_students.py", description="Keep students.")
    parser.add_argument("again", type=Path, help="results folder of the repetitions, with student.npz beside run.json")
    options = parser.parse_args(arguments)
    results = records.find_results()
    index = results / INDEX
    rows = {row["file"]: row for row in (json.loads(index.read_text()) if index.is_file() else [])}
    for path in sorted(options.again.glob("*/*/student.npz")):
        row = halved(path.parent, results)
        rows[row["file"]] = row
        print(f"{row['file']}: {row['top1']:.4f}, in float32 {row['top1_float32']:.4f}")
    weights.write_atomically(index, f"{json.dumps([rows[file] for file in sorted(rows)], indent=1)}\n".encode())


if __name__ == "__main__":
    sys.exit(main())

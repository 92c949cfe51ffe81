"""A run is a record: `results/<study>/<run id>/run.json` and `metrics.csv`, written atomically."""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib.errors import DistillError
from distill_lib.weights import File, write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from distill_lib.recipes import Recipe

Record = dict[str, Any]
Row = dict[str, Any]

NOTHING = "no records yet"  # what tables and figures say where there are none
SCHEMA = 1
MAX_BYTES = 50_000
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
REQUIRED = (
    *("schema", "run_id", "study", "mock", "recipe", "result"),
    *("steps", "wall_seconds", "device", "date", "commit"),
)
_RENAMED = {"class_size": "students_per_step"}  # of records that were made before
RECIPE_FIELDS = ("policy", "epochs", "seed", "train_images", "crop_area")
"""What tables and curves need of a record's recipe; further fields may be missing in old ones."""


def find_results() -> Path:
    """The results folder: $DISTILL_RESULTS, else `results` beside the nearest pyproject.toml above this folder."""
    if folder := os.environ.get("DISTILL_RESULTS"):
        return Path(folder)
    for parent in (Path.cwd(), *Path.cwd().parents):
        if (parent / "pyproject.toml").is_file() and (parent / "results").is_dir():
            return parent / "results"
    return Path("results")


def describe(
    recipe: Recipe, *, run_id: str, mock: bool, result: Row, timing: Row, teacher: dict[str, Any] | None
) -> Record:
    """Builds the record of a finished run.

    Args:
        recipe: the resolved recipe.
        run_id: name of the run.
        mock: whether the data were made up, so that the run must never reach a figure.
        result: final metrics; accuracies as shares in [0, 1].
        timing: `steps`, `wall_seconds`, `images_per_second`, `students_per_step` (that were taught together),
            `resumed` (how often the run was taken up again), and where there may be any, `bad_images` (that were met
            in training) and `<split>_bad_images` (that no metric of the split counts).
        teacher: name and SHA-256 of the teacher's checkpoint, if there was one.
    """
    about = {"schema": SCHEMA, "run_id": run_id, "study": recipe.study, "mock": mock, "teacher": teacher}
    return about | {"recipe": dataclasses.asdict(recipe), "result": result} | timing | environment()


def environment() -> Record:
    """Where and with what a record was made: device, peak memory, date, commit and versions."""
    import jax

    device, (revision, dirty) = jax.devices()[0], commit()
    on_cpu = f"CPU, {os.cpu_count()} cores ({platform.machine()})"
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "peak_memory_mb": _peak_memory_mb(),
        "device": on_cpu if device.platform == "cpu" else device.device_kind,
        "device_count": jax.device_count(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": revision,
        "dirty": dirty,
        "versions": {"python": platform.python_version()} | versions,
    }


def write(directory: Path, record: Record, rows: list[Row]) -> None:
    """Writes metrics.csv and then run.json, whose presence says that the run is complete.

    Raises:
        DistillError: if the folder cannot be written, or the record is larger than 50 kB.
    """
    content = json.dumps(record, indent=1, sort_keys=True).encode()
    table = to_csv(rows)
    if len(content) + len(table) > MAX_BYTES:
        raise DistillError(f"the record of {record['run_id']} is larger than {MAX_BYTES} bytes; lower evaluations.")
    write_atomically(directory / "metrics.csv", table)
    write_atomically(directory / "run.json", content)


def add(directory: Path, result: Row) -> None:
    """Adds further final metrics to the record of a finished run; raises DistillError where there is none."""
    record = load(directory)
    if record is None:
        raise DistillError(f"{directory} holds no finished run; train it first.")
    write(directory, record | {"result": record["result"] | result}, read_rows(directory / "metrics.csv"))


def to_json(recipe: Recipe) -> bytes:
    """A recipe as JSON: the note that an unfinished run leaves in its folder."""
    return json.dumps(dataclasses.asdict(recipe), indent=1, sort_keys=True).encode()


def to_csv(rows: list[Row]) -> bytes:
    """Rows of one run as CSV; numbers are written so that reading them gives the same bits."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_rows(path: Path) -> list[Row]:
    """Reads metrics.csv back into rows; an absent file is no rows. Raises DistillError if it is damaged."""
    if not path.is_file():
        return []
    try:
        with open(path, newline="") as file:
            return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise DistillError(f"{path} is damaged ({error}); delete its folder and run it again.") from error


def load(directory: Path) -> Record | None:
    """Reads one record; None where the run is not complete. Raises DistillError if the record is damaged."""
    path = directory / "run.json"
    if not path.is_file():
        return None
    try:
        record: Record = json.loads(path.read_text())
        missing = [name for name in REQUIRED if name not in record]
        missing = missing or [name for name in ("recipe", "result") if not isinstance(record[name], dict)]
        missing = missing or [f"recipe.{name}" for name in RECIPE_FIELDS if name not in record["recipe"]]
    except (ValueError, TypeError) as error:
        raise DistillError(f"{path} is damaged ({error}); delete its folder and run it again.") from error
    if missing:
        raise DistillError(f"{path} lacks {', '.join(missing)}; delete its folder and run it again.")
    if record["schema"] != SCHEMA:
        raise DistillError(f"{path} has schema {record['schema']}, this version reads {SCHEMA}; run it again.")
    return {_RENAMED.get(name, name): value for name, value in record.items()}


def read(results: File | None = None, study: str | None = None, *, mock: bool = False) -> pd.DataFrame:
    """All complete runs as one tidy table.

    Args:
        results: the results folder; None finds it.
        study: only this study.
        mock: whether runs on made-up data are included; figures never ask for them.

    Returns:
        One row a run: run_id, study, every field of the recipe, every final metric, steps, wall_seconds, device, date,
        commit. Sorted by study, policy, epochs and seed. Empty, with those columns, where there are no runs.

    Raises:
        DistillError: naming the file, if a record is damaged.
    """
    import pandas as pd

    rows = []
    for _, record in _all(results, study, mock):
        flat = {name: value for name, value in record.items() if not isinstance(value, dict)}
        teacher = record.get("teacher") or {}
        flat["teacher_sha256"] = teacher.get("sha256", "")
        flat["bytes_per_view"] = teacher.get("stored", {}).get("bytes_per_view")
        recipe = record["recipe"] | {"crop_area": tuple(record["recipe"]["crop_area"])}
        rows.append(flat | recipe | record["result"])
    if not rows:
        return pd.DataFrame(columns=["run_id", "study", "policy", "epochs", "seed", "test_top1"])
    return pd.DataFrame(rows).sort_values(["study", "policy", "epochs", "seed", "run_id"], ignore_index=True)


def curves(results: File | None = None, study: str | None = None, *, mock: bool = False) -> pd.DataFrame:
    """The metrics.csv of all complete runs as one table; arguments as of `read`.

    One row a report of a run: run_id, study, policy, epochs, seed, train_images and the columns of metrics.csv (the
    epoch at that row is `epoch`, the length of the schedule `epochs`).
    """
    import pandas as pd

    rows = []
    for directory, record in _all(results, study, mock):
        about = {name: record[name] for name in ("run_id", "study")}
        about |= {name: record["recipe"][name] for name in ("policy", "epochs", "seed", "train_images")}
        path = directory / "metrics.csv"
        if not path.is_file():
            raise DistillError(f"{path} is missing; delete its folder and run it again.")
        rows += [about | row for row in read_rows(path)]
    return pd.DataFrame(rows)


def provenance(frame: pd.DataFrame) -> str:
    """One line that says where rows of `read` come from: seeds, devices and dates, then runs and commits."""
    if frame.empty:
        return "No runs."
    ids = sorted(frame["run_id"])
    names = ", ".join(ids) if len(ids) <= 3 else f"{ids[0]}, {ids[1]} and {len(ids) - 2} more"
    commits = ", ".join(sorted({commit[:7] for commit in frame["commit"]}))
    seeds = ", ".join(str(seed) for seed in sorted(set(frame["seed"])))
    devices = ", ".join(sorted(set(frame["device"])))
    days = sorted({date[:10] for date in frame["date"]})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    count = "1 run" if len(ids) == 1 else f"{len(ids)} runs"
    return f"{count}; seeds {seeds}; {devices}; {when}. Runs: {names}; code {commits}."


def _all(results: File | None, study: str | None, mock: bool) -> Iterator[tuple[Path, Record]]:
    root = Path(results) if results is not None else find_results()
    for path in sorted(root.glob(f"{study or '*'}/*/run.json")):
        record = load(path.parent)
        if record is not None and (mock or not record["mock"]):
            yield path.parent, record


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@functools.cache
def commit() -> tuple[str, bool]:
    """The commit of the library's checkout and whether its code was changed since; ("unknown", False) outside git.

    Asked once a process, so that whoever asks first decides of which moment the answer is.
    """

    def git(*arguments: str) -> str:
        command, folder = ["git", *arguments], Path(__file__).parent
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _peak_memory_mb() -> float:
    """Peak memory of the device if it reports one, else of this process, in MiB."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak: int = stats["peak_bytes_in_use"]
    else:
        import resource

        unit = 1 if sys.platform == "darwin" else 2**10  # bytes of what the system counts in
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return round(peak / 2**20, 1)

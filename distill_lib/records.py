"""A run is a record: `results/<study>/<run id>/run.json` and `metrics.csv`, written atomically."""

import contextlib
import csv
import functools
import hashlib
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
from distill_lib.weights import File, flatten, write_atomically

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
Row = dict[str, Any]

NOTHING = "no records yet"  # what tables and figures say where there are none
SCHEMA = 2  # of records with checksums, which stand for types and completeness of all fields
MAX_BYTES = 50_000
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
SETTINGS = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable"),
    *("jax_numpy_dtype_promotion", "jax_disable_most_optimizations", "jax_optimization_level"),
)
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
BESIDE = ("../benchmarks", "../book/experiments/*.py", "../book/experiments/*.npz")  # no part of the library
AFTERWARDS = {"figures", "report", "cli.py"}  # what no number of a run depends on
TABLES = ("presets.toml", "datasets.toml", "checkpoints.csv", "mobilenets.csv", "parameter_names.toml")
"""Of `data`, what it depends on."""


def find_results(named: File | None = None) -> Path:
    """The results folder: `named`, else $DISTILL_RESULTS, else `results` beside the nearest pyproject.toml above."""
    if named is not None:
        return Path(named)
    if folder := os.environ.get("DISTILL_RESULTS"):
        return Path(folder)
    for parent in (Path.cwd(), *Path.cwd().parents):
        if (parent / "pyproject.toml").is_file() and (parent / "results").is_dir():
            return parent / "results"
    return Path("results")


def environment() -> Record:
    """Where and with what a record was made: device, peak memory, date, commit, and what `circumstances` says."""
    (revision, dirty), date = commit(), datetime.now(UTC).isoformat(timespec="seconds")
    return {"peak_memory_mb": _peak_memory_mb(), "commit": revision, "dirty": dirty, "date": date} | circumstances()


def circumstances() -> Record:
    """What decides the last bits of a run beside recipe, data and teacher: where it changes, so may the result."""
    import jax

    device, versions = jax.devices()[0], {package: importlib.metadata.version(package) for package in PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    on_cpu = f"CPU, {cores} cores ({platform.machine()})"
    return {
        "device": on_cpu if device.platform == "cpu" else device.device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "versions": {"python": platform.python_version()} | versions,
        "settings": {name: jax.config.values.get(name) for name in SETTINGS}
        | {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "code": code(),
    }


def differences(before: Record, now: Record) -> dict[str, list[Any]]:
    """What two JSON-able descriptions differ in: by path such as "versions/jax", the value before and the one now."""
    old, new = (flatten(json.loads(json.dumps(described))) for described in (before, now))
    names = sorted(old.keys() | new.keys())
    return {name: [old.get(name), new.get(name)] for name in names if old.get(name) != new.get(name)}


def in_words(changed: dict[str, list[Any]]) -> str:
    """What `differences` found, for a message."""
    return "; ".join(f"{name} was {before!r} and is {now!r}" for name, (before, now) in changed.items())


def write(directory: Path, record: Record, rows: list[Row]) -> Record:
    """Writes metrics.csv and then run.json, and returns it so; DistillError if it cannot, or for more than 50 kB."""
    table = to_csv(rows)
    record = record | {"schema": SCHEMA, "checksums": {"metrics.csv": _sha256(table)}}
    record["checksums"] = {"run.json": _sha256(_dumped(record))} | record["checksums"]
    content = _dumped(record)
    if len(content) + len(table) > MAX_BYTES:
        raise DistillError(f"the record of {record['run_id']} is larger than {MAX_BYTES} bytes; lower evaluations.")
    write_atomically(directory / "metrics.csv", table)
    write_atomically(directory / "run.json", content)
    return record


def add(directory: Path, result: Row) -> None:
    """Adds further final metrics to the record of a finished run; raises DistillError where there is none."""
    if (record := load(directory)) is None:
        raise DistillError(f"{directory} holds no finished run; train it first.")
    write(directory, record | {"result": record["result"] | result}, read_rows(directory, record))


def to_csv(rows: list[Row]) -> bytes:
    """Rows of one run as CSV; numbers are written so that reading them gives the same bits."""
    text, columns = io.StringIO(), list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_rows(directory: Path, record: Record) -> list[Row]:
    """Reads the metrics.csv of a finished run; blank cells are "". DistillError if it is damaged or another run's."""
    path = directory / "metrics.csv"
    try:
        content = path.read_bytes()
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        rows = [{name: _number(text) for name, text in row.items()} for row in reader]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise _damaged(path, f"is damaged ({error})") from error
    if record["checksums"]["metrics.csv"] != _sha256(content):
        raise _damaged(path, "is damaged (run.json has another checksum of it)")
    return rows


def load(directory: Path) -> Record | None:
    """Reads one record; None where the run is not complete. Raises DistillError if the record is damaged."""
    if not (path := directory / "run.json").is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise _damaged(path, f"is damaged ({error})") from error
    if problem := _problem(record):
        raise _damaged(path, problem)
    return record


def _problem(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "is damaged (it is no table)"
    if record.get("schema") != SCHEMA:
        return f"has schema {record.get('schema')!r}, this version reads {SCHEMA}"
    checksums = record.get("checksums")
    if not isinstance(checksums, dict) or checksums.keys() != {"run.json", "metrics.csv"}:
        return "has no checksums"
    covered = record | {"checksums": {"metrics.csv": checksums["metrics.csv"]}}
    return None if checksums["run.json"] == _sha256(_dumped(covered)) else "is damaged (its checksum is another)"


def _damaged(path: Path, problem: str) -> DistillError:
    return DistillError(f"{path} {problem}; delete its folder and run it again.")


def _dumped(content: Record) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(results: File | None = None, study: str | None = None, *, mock: bool = False) -> "pd.DataFrame":
    """All complete runs, or of a study, as one tidy table, a row a run: facts, fields of the recipe, final metrics.

    Those on made-up data only if `mock` runs are asked for, which no figure does. Sorted by study, policy, epochs and
    seed; empty, with some of those columns, where there are no runs. DistillError if a record is damaged.
    """
    import pandas as pd

    rows, order = [], ["study", "policy", "epochs", "seed", "run_id"]
    for _, record in _all(results, study, mock):
        flat = {name: value for name, value in record.items() if not isinstance(value, dict | list)}
        teacher, area = record.get("teacher") or {}, tuple(record["recipe"]["crop_area"])
        flat |= {"bytes_per_view": teacher.get("stored", {}).get("bytes_per_view")}
        flat |= {"teacher_sha256": teacher.get("sha256", ""), **record["recipe"], "crop_area": area}
        rows.append(flat | record["result"])
    if not rows:
        return pd.DataFrame(columns=[*order, "test_top1"])
    return pd.DataFrame(rows).sort_values(order, ignore_index=True)


def curves(results: File | None = None, study: str | None = None, *, mock: bool = False) -> "pd.DataFrame":
    """The metrics.csv of all complete runs as one table, with run_id, study, policy, epochs (of the whole) and seed."""
    import pandas as pd

    rows, columns = [], ("run_id", "study", "policy", "epochs", "seed", "train_images")
    for directory, record in _all(results, study, mock):
        about = {name: (record["recipe"] | record)[name] for name in columns}
        rows += [about | row for row in read_rows(directory, record)]
    return pd.DataFrame(rows)


def provenance(*frames: "pd.DataFrame") -> str:
    """One line that says where rows of `read` come from: seeds, devices and dates, then runs and commits."""
    import pandas as pd

    full = [frame for frame in frames if not frame.empty]
    if not full:
        return "No runs."
    frame = pd.concat(full)
    ids, days = sorted(frame["run_id"]), sorted({date[:10] for date in frame["date"]})
    names = ", ".join(ids) if len(ids) <= 3 else f"{ids[0]}, {ids[1]} and {len(ids) - 2} more"
    columns = (frame["seed"], frame["device"], frame["commit"].str[:7])
    seeds, devices, commits = (", ".join(map(str, sorted(set(column)))) for column in columns)
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    count = "1 run" if len(ids) == 1 else f"{len(ids)} runs"
    return f"{count}; seeds {seeds}; {devices}; {when}. Runs: {names}; code {commits}."


def _all(results: File | None, study: str | None, mock: bool) -> Iterator[tuple[Path, Record]]:
    for path in sorted(find_results(results).glob(f"{study or '*'}/*/run.json")):
        record = load(path.parent)
        if record is not None and (mock or not record["mock"]):
            yield path.parent, record


def _number(text: str) -> int | float | str:
    with contextlib.suppress(ValueError):
        return int(text)
    return float(text) if text else ""


@functools.cache
def code() -> str:
    """Digest of the library's files and tables, without those that only tell and draw."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted([*folder.rglob("*.py"), *(folder / "data" / name for name in TABLES)]):
        if path.relative_to(folder).parts[0] not in AFTERWARDS:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def commit() -> tuple[str, bool]:
    """The commit of the checkout at the first call, and whether its code was changed; or ("unknown", False)."""

    def git(*arguments: str) -> str:
        command, folder = ["git", *arguments], Path(__file__).parent
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", *BESIDE))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _peak_memory_mb() -> float:
    import jax

    peak: int | None = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if peak is None:
        import resource

        unit = 1 if sys.platform == "darwin" else 2**10  # bytes of what the system counts in
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return round(peak / 2**20, 1)

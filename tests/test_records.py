"""Records: what is read is what was written, made-up runs stay out, and damage is told with the file's name."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_lib import recipes, records
from distill_lib.errors import DistillError

ROWS = [
    {"step": 4, "epoch": 0.1 + 0.2, "loss": 1 / 3, "validation_top1": 1.0},
    {"step": 8, "epoch": 1.0, "loss": 5e-324, "validation_top1": 0.1},
]


def make_record(policy: str = "mix", seed: int = 0, mock: bool = False, **changes: object) -> dict:
    """The record of a run that never was."""
    recipe = recipes.get("fashion", "smoke", policy=policy, seed=seed)
    timing = {"steps": 8, "wall_seconds": 1.5, "images_per_second": 85.3, "resumed": 0}
    result = {"test_top1": 0.1 + 0.2, "train_loss": 1 / 3}
    teacher = {"name": "mock", "sha256": "abc"} if recipe.has_teacher else None
    run_id = recipe.run_id("abc" if teacher else "")
    about = {"run_id": run_id, "study": recipe.study, "mock": mock, "recipe": dataclasses.asdict(recipe)}
    return about | {"result": result, "teacher": teacher} | timing | records.environment() | changes


def write(root: Path, record: dict) -> Path:
    """Writes a record where `read` looks for it."""
    folder = root / record["study"] / record["run_id"]
    records.write(folder, record, ROWS)
    return folder


def read_back(folder: Path, rows: list[dict]) -> list[dict]:
    """Rows as they are read from the metrics.csv of a run."""
    return records.read_rows(folder, records.write(folder, make_record(), rows))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two complete runs, one on made-up data, and one that is not complete."""
    write(tmp_path, make_record("mix"))
    write(tmp_path, make_record("labels", seed=1))
    write(tmp_path, make_record("same/ic", mock=True))
    unfinished = tmp_path / "fashion_smoke" / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.json").write_text("{}")
    return tmp_path


NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)


@given(st.lists(st.tuples(st.integers(0, 10**9), NUMBERS, NUMBERS), min_size=1, max_size=5))
@settings(max_examples=50)
def test_numbers_survive_the_csv_bit_for_bit(values: list[tuple]) -> None:
    """A resumed run reads its rows back, and must go on with the very same numbers, integers as integers."""
    rows = [dict(zip(("step", "loss", "top1"), numbers, strict=True)) for numbers in values]
    with tempfile.TemporaryDirectory() as folder:
        found = read_back(Path(folder), rows)
    assert found == rows
    for row, same in zip(rows, found, strict=True):
        assert [type(value) for value in row.values()] == [type(value) for value in same.values()]
        assert [repr(value) for value in row.values()] == [
            repr(value) for value in same.values()
        ]  # tells -0.0 from 0.0
    assert records.to_csv(found) == records.to_csv(rows)


def test_columns_that_come_later_are_blank_before(tmp_path: Path) -> None:
    """Rows need not have the same columns."""
    assert read_back(tmp_path, [{"step": 1}, {"step": 2, "kl": 0.5}]) == [{"step": 1, "kl": ""}, {"step": 2, "kl": 0.5}]
    assert (tmp_path / "metrics.csv").read_text() == "step,kl\n1,\n2,0.5\n"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The round trip through JSON changes nothing but tuples into lists."""
    record = make_record()
    folder = write(tmp_path, record)
    found = records.load(folder)
    assert found is not None and records.read_rows(folder, found) == ROWS
    assert set(found.pop("checksums")) == {"run.json", "metrics.csv"} and found.pop("schema") == records.SCHEMA
    assert found == json.loads(json.dumps(record))
    assert sorted(os.listdir(folder)) == ["metrics.csv", "run.json"]


def test_a_record_says_where_a_number_comes_from() -> None:
    """Recipe, result, versions, device, date and commit: what one needs to check a number years later."""
    record = make_record()
    assert record["recipe"]["policy"] == "mix" and record["recipe"]["crop_area"] == (0.25, 1.0)
    assert record["study"] == "fashion_smoke" and record["steps"] == 8
    assert set(records.PACKAGES) < set(record["versions"])
    assert record["versions"]["numpy"] == np.__version__
    assert pd.Timestamp(record["date"]).tzinfo is not None
    assert "CPU" in record["device"] and record["device_count"] == 2 and record["peak_memory_mb"] > 10
    assert {"code", "settings", "versions"} < set(record)


@pytest.mark.parametrize(("system", "unit"), [("linux", 2**10), ("darwin", 1)])
def test_peak_memory_is_told_in_mib(system: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux counts in KiB, and macOS in bytes."""
    used = lambda _: SimpleNamespace(ru_maxrss=3 * 2**20 // unit)  # noqa: E731
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", used)
    assert records._peak_memory_mb() == 3


def test_the_commit_is_that_of_the_code() -> None:
    """As git says it in the folder of the library, or "unknown" where it is not a checkout."""
    folder = Path(records.__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
    assert make_record()["commit"] == (git.stdout.strip() if git.returncode == 0 else "unknown")


def test_read_gives_one_tidy_table(results: Path) -> None:
    """One row a complete run, with every field of the recipe and of the result, sorted."""
    frame = records.read(results)
    assert list(frame["policy"]) == ["labels", "mix"] and list(frame["seed"]) == [1, 0]
    for column in ("run_id", "study", "steps", "wall_seconds", "device", "date", "commit", "test_top1", "train_loss"):
        assert column in frame
    assert frame["test_top1"].tolist() == [0.1 + 0.2] * 2
    assert frame["teacher_sha256"].tolist() == ["", "abc"]
    assert frame["crop_area"].tolist() == [(0.25, 1.0)] * 2
    assert frame["learning_rate"].dtype == float and frame["epochs"].dtype == float


def test_made_up_runs_never_reach_a_figure(results: Path) -> None:
    """Runs on mock data are left out of tables and curves unless they are asked for."""
    assert "same/ic" not in set(records.read(results)["policy"])
    assert "same/ic" not in set(records.curves(results)["policy"])
    assert "same/ic" in set(records.read(results, mock=True)["policy"])
    assert "same/ic" in set(records.curves(results, mock=True)["policy"])


def test_read_can_be_limited_to_a_study(results: Path) -> None:
    """Other studies are not even opened."""
    other = make_record("ind/ic")
    write(results, other | {"study": "pets_fast"})
    assert list(records.read(results, "pets_fast")["policy"]) == ["ind/ic"]
    assert len(records.read(results)) == 3
    (results / "pets_fast" / other["run_id"] / "run.json").write_text("broken")
    assert len(records.read(results, "fashion_smoke")) == 2


def test_curves_are_one_row_a_report(results: Path) -> None:
    """The columns of metrics.csv beside what tells the runs apart."""
    frame = records.curves(results)
    assert len(frame) == 2 * len(ROWS)
    mix = frame[frame["policy"] == "mix"]
    assert mix["step"].tolist() == [4, 8] and mix["loss"].tolist() == [1 / 3, 5e-324]
    assert set(frame) >= {"run_id", "study", "policy", "epochs", "seed", "train_images", "epoch", "validation_top1"}


def test_no_runs_is_an_empty_table_with_columns(tmp_path: Path) -> None:
    """A figure may ask for columns before there are runs; an absent folder is no runs."""
    for frame in (records.read(tmp_path), records.read(tmp_path / "absent")):
        assert frame.empty and {"run_id", "study", "policy", "epochs", "seed", "test_top1"} <= set(frame)
    assert records.curves(tmp_path).empty
    assert records.provenance(records.read(tmp_path)) == "No runs."


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"schema": 2, "run', b"[]", b"17", b"null", b'"text"', b"\xff\xfe\x00", b"{}", b'{"schema": 2}'],
)
def test_a_damaged_record_is_told_with_its_file(results: Path, content: bytes) -> None:
    """One line that names the file and says what to do; the other records stay as they are."""
    record = make_record("mix")
    path = results / record["study"] / record["run_id"] / "run.json"
    others = {other: other.read_bytes() for other in results.rglob("*") if other.is_file() and other != path}
    path.write_bytes(content)
    for reader in (records.read, records.curves):
        with pytest.raises(DistillError, match="delete its folder and run it again") as caught:
            reader(results)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert {other: other.read_bytes() for other in others} == others


@pytest.mark.parametrize("content", ["step,loss\n1\n", "step,loss\n1,2,3\n", "step,loss\n1,0.5\n\x00\xff"])
def test_a_damaged_table_is_told_with_its_file(results: Path, content: str) -> None:
    """A metrics.csv that was cut off, or whose rows do not fit its columns."""
    record = make_record("mix")
    path = results / record["study"] / record["run_id"] / "metrics.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DistillError, match="is damaged") as caught:
        records.curves(results)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_record_without_its_table_is_told(results: Path) -> None:
    """A complete run has a metrics.csv; without it its curve would be missing in silence."""
    record = make_record("mix")
    path = results / record["study"] / record["run_id"] / "metrics.csv"
    path.unlink()
    with pytest.raises(DistillError, match="metrics.csv") as caught:
        records.curves(results)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"steps": "8"}, {"mock": 0}, {"result": {"test_top1": 0.5}}, {"recipe": []}, {"checksums": {}}]
)
def test_a_field_that_was_changed_by_hand_is_told(results: Path, changes: dict) -> None:
    """A number that no run wrote, or another type; checksums see all of them."""
    path = next(results.glob("*/*/run.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DistillError, match=r"checksum.*; delete its folder") as caught:
        records.load(path.parent)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["run.json", "metrics.csv"])
def test_no_flipped_bit_is_read_as_another_number(tmp_path: Path, name: str) -> None:
    """Of a record and of its table: an error, or the very same content."""
    folder = write(tmp_path, make_record())
    content, before, refused = (folder / name).read_bytes(), records.load(folder), 0
    assert before is not None
    for number in np.random.default_rng(0).integers(len(content), size=200):
        bad = bytearray(content)
        bad[number] ^= 1 << int(number) % 8
        (folder / name).write_bytes(bad)
        try:
            now = records.load(folder)
            assert now == before and records.read_rows(folder, before) == ROWS
        except DistillError as error:
            assert str(folder / name) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused == 200 if name == "metrics.csv" else refused > 100, "spaces between fields may be others"


def test_a_table_that_ends_early_is_told(results: Path) -> None:
    table = next(results.glob("*/*/metrics.csv"))
    lines = table.read_text().splitlines(keepends=True)
    for content in ("", "".join(lines[:-1]), "".join(lines).replace("0.1", "O.1")):
        table.write_text(content)
        with pytest.raises(DistillError, match=r"metrics.csv is damaged .*delete its folder"):
            records.curves(results, mock=True)


def test_all_records_of_this_project_are_read() -> None:
    """Each as it is in the repository."""
    results = Path(__file__).parents[1] / "results"
    for path in results.glob("*/*/run.json"):
        record = records.load(path.parent)
        assert record is not None and records.read_rows(path.parent, record)


def test_a_record_of_another_schema_is_told(results: Path) -> None:
    """Neither guessed at nor left out."""
    path = write(results, make_record("mix")) / "run.json"
    for schema in (1, records.SCHEMA + 1):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
        with pytest.raises(DistillError, match=f"schema {schema}, this version reads {records.SCHEMA}"):
            records.read(results)


def test_a_record_has_at_most_50_kb(tmp_path: Path) -> None:
    """A usual one is far smaller; one that would be larger is refused before anything is written."""
    record = make_record()
    folder = write(tmp_path, record)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000
    rows = [{"step": step, "loss": 1 / (step + 3)} for step in range(2_500)]
    with pytest.raises(DistillError, match="larger than 50000 bytes; lower evaluations"):
        records.write(tmp_path / "large", record, rows)
    assert not (tmp_path / "large").exists()


def test_run_json_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its presence says that the run is complete, so a kill between the two files must leave an unfinished run."""
    written = []
    monkeypatch.setattr(records, "write_atomically", lambda path, content: written.append(path.name))
    records.write(tmp_path, make_record(), ROWS)
    assert written == ["metrics.csv", "run.json"]


def test_results_can_be_added_to_a_finished_run(tmp_path: Path) -> None:
    """What was there stays; an unfinished run takes nothing."""
    record = make_record()
    folder = write(tmp_path, record)
    records.add(folder, {"test_top1_under_crops": 0.5})
    found = records.load(folder)
    assert found is not None
    assert found["result"] == record["result"] | {"test_top1_under_crops": 0.5}
    assert records.read_rows(folder, found) == ROWS
    with pytest.raises(DistillError, match="holds no finished run; train it first"):
        records.add(tmp_path / "absent", {"test_top1": 1.0})


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file stands where the results should be."""
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(DistillError, match="cannot write .*make the folder writable or name another"):
        write(tmp_path / "results", make_record())


def test_provenance_is_one_line_with_runs_commits_seeds_devices_and_dates(results: Path) -> None:
    """Short lists in full."""
    frame = records.read(results)
    frame["commit"], frame["device"] = ["1234567890", "abcdefghij"], ["one device", "another device"]
    frame["date"] = ["2001-02-03T04:05:06+00:00", "2001-03-01T00:00:00+00:00"]
    line = records.provenance(frame)
    for part in (*frame["run_id"], "2 runs", "1234567, abcdefg", "seeds 0, 1", "another device, one device"):
        assert part in line
    assert "2001-02-03 to 2001-03-01" in line and "\n" not in line


def test_provenance_of_many_runs_is_still_short(results: Path) -> None:
    """Long lists are abbreviated, but the number of runs is told."""
    frame = pd.concat([records.read(results)] * 20, ignore_index=True)
    frame["run_id"] = [f"run{number:02d}" for number in range(40)]
    line = records.provenance(frame)
    assert "Runs: run00, run01 and 38 more" in line
    assert len(line) < 300


def test_results_are_found_beside_the_project_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder of the project; the environment variable goes first."""
    monkeypatch.delenv("DISTILL_RESULTS", raising=False)
    inside = tmp_path / "project" / "book" / "chapter"
    inside.mkdir(parents=True)
    (tmp_path / "project" / "results").mkdir()
    (tmp_path / "project" / "pyproject.toml").touch()
    monkeypatch.chdir(inside)
    assert records.find_results() == tmp_path / "project" / "results"
    write(tmp_path / "project" / "results", make_record())
    assert len(records.read()) == 1 and len(records.curves()) == len(ROWS)
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path / "elsewhere"))
    assert records.find_results() == tmp_path / "elsewhere"
    assert records.read().empty


def test_the_csv_is_plain(tmp_path: Path) -> None:
    """Other tools read it as well."""
    folder = write(tmp_path, make_record())
    with open(folder / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "8"]
    assert b"\r" not in (folder / "metrics.csv").read_bytes()


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("distill_lib/views.py", True),
        ("benchmarks/cases.toml", True),
        ("book/experiments/beside.py", True),
        ("book/experiments/opened.ipynb", False),
        ("README.md", False),
    ],
)
def test_a_record_says_whether_the_code_was_changed(
    path: str, dirty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the library, and of what a checkout has beside it; a notebook that was opened, or prose, changes no run."""
    file = tmp_path / path
    for folder in (file.parent, tmp_path / "distill_lib"):
        folder.mkdir(parents=True, exist_ok=True)
    file.write_text("before")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "distill_lib" / "records.py"))
    commit, clean = records.commit.__wrapped__()
    assert len(commit) == 40 and not clean
    file.write_text("after")
    assert records.commit.__wrapped__() == (commit, dirty)

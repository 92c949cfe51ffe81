"""The benchmark of the input: what it compares, and that it runs where there is no TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import input as bench
from benchmarks import process
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import stream
from distill_lib.report.benchmarks import as_text

TINY: dict[str, Any] = {"rounds": 2, "batches": 1, "quality": [75]}
# Answers as a job does, and does nothing: an image takes as many seconds as its form has letters, and half of the CPU.
_INSTEAD = """
import json, sys
form = json.loads(sys.stdin.readline())["form"]
if form != "threads" and {absent}:
    sys.exit("No module named tensorflow")
print(json.dumps(None), flush=True)
for _ in sys.stdin:
    print(json.dumps([len(form) * 64, len(form) * 32]), flush=True)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, and a small picture in place of the photographs."""

    def write(folder: Path, quality: int) -> float:
        pixels = np.arange(60 * 80 * 3, dtype=np.uint32).reshape(60, 80, 3) % 251
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "small.jpg", quality=quality)
        return 1.5

    monkeypatch.setattr(bench, "photographs", write)
    monkeypatch.setattr(stream, "cores", lambda: 2)


def test_without_tensorflow_the_library_is_timed_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Alone, on one core and with threads on two; every row can be shown."""
    rows = bench.measure(**TINY)
    assert [row["cores"] for row in rows] == [1, 2]
    for row in rows:
        assert not row.keys() & {"form", "tf.data", "ratio", "CPU ratio"}
        assert row["distill_lib"].median > 0 and row["images/s"] == pytest.approx(1 / row["distill_lib"].median)
        assert row["distill_lib CPU"].median > 0 and row["images a round"] == 64
    assert "images/s" in as_text(rows)
    assert "plain: not run: name a Python that has it: --tensorflow" in capsys.readouterr().out


def test_both_forms_of_tf_data_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row has the seconds of its own form, and ratios larger than 1 where the library is faster."""
    (tmp_path / "serve.py").write_text(_INSTEAD.format(absent=False))
    monkeypatch.setattr(process, "SERVE", [tmp_path / "serve.py"])
    monkeypatch.setattr(bench, "FORMS", ("plain", "another"))
    rows = bench.measure(**TINY, tensorflow=sys.executable)
    for row in rows:  # "threads" has seven letters
        assert row["distill_lib"].median == 7 and row["distill_lib CPU"].median == 3.5
        assert row["tf.data"].median == len(row["form"])
        assert row["ratio"] == row["CPU ratio"] == pytest.approx(len(row["form"]) / 7)


def test_a_job_that_stops_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last line of what it said, as where the Python that was named has no TensorFlow."""
    (tmp_path / "serve.py").write_text(_INSTEAD.format(absent=True))
    monkeypatch.setattr(process, "SERVE", [tmp_path / "serve.py"])
    with pytest.raises(DistillError, match=r"a job stopped \(No module named tensorflow\): check that --tensorflow"):
        bench.measure(**TINY, tensorflow=sys.executable)
    with pytest.raises(DistillError, match="there is no Python at"):
        bench.measure(**TINY, tensorflow="/nowhere/python")

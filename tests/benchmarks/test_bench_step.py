"""The benchmark of the step: what it compares, that it compares like with like, and what it says without peers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import process, step
from distill_lib.errors import DistillError

SMALL = {"student": "bit_r11w8", "policy": "mix", "resolution": 8, "batch_size": 4}
TINY = step.Case("tiny", ("fashion", "quick"), SMALL, (step.PLAIN, step.COMPILED), 1)
FACTS = {
    "version": "torch 9",
    "device": "gpu",
    "macs": {"student": 100, "teacher": 700},
    "logits": {"student": [[1.0, -4.0]], "teacher": [[2.0, 0.0]]},
    "peak": 16_000.0,
}
# Serves made-up seconds a step, and the facts of a file beside it.
_SERVE = """
import json, pathlib, sys
form = json.loads(sys.stdin.readline())["form"].removeprefix("PyTorch, ")
facts, seconds = json.loads((pathlib.Path(__file__).parent / "told.json").read_text())[form]
if not facts:
    sys.exit("no compiler")
print(json.dumps(facts), flush=True)
for line in sys.stdin:
    print(json.dumps([seconds, seconds]), flush=True)
"""


def told(folder: Path, monkeypatch: pytest.MonkeyPatch, **jobs: tuple[dict, float]) -> None:
    """Puts jobs that only say what they are told in the place of the real ones."""
    (folder / "serve.py").write_text(_SERVE)
    (folder / "told.json").write_text(json.dumps(jobs))
    monkeypatch.setattr(process, "SERVE", [folder / "serve.py"])
    monkeypatch.setattr(step, "CASES", {"mix": TINY})


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cases, one for an accelerator."""
    away = TINY._replace(name="far away", accelerator=True)
    monkeypatch.setattr(step, "CASES", {"mix": TINY, "accelerator": away})


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_without_peers_the_library_is_timed_and_it_is_said_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """A real step of a tiny pair; a case for another device has no row, and alone it is an error."""
    (ours,) = step.measure(cases=tuple(step.CASES), rounds=2)
    assert ours["step"].median > 0 and ours["images/s"] == pytest.approx(4 / ours["step"].median)
    assert 0 < ours["share of peak"] < 1 and ours["logits differ by"] == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{form}: not run: name a Python that has it: --torch" for form in (step.PLAIN, step.COMPILED)]
    with pytest.raises(DistillError, match="the cases accelerator are for another device than cpu"):
        step.measure(cases=["accelerator"])


def test_ratios_and_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A peer that takes longer has a ratio above 1; four images of 3 x 100 + 700 products are 4,000, in 2 seconds."""
    told(tmp_path, monkeypatch, distill_lib=(FACTS, 2.0), plain=(FACTS, 2.2), compiled=({}, 0))
    ours, plain = step.measure(cases=tuple(step.CASES), rounds=2, torch=sys.executable)
    assert ours["step"].median == 2 and ours["times as long"] == 1 and ours["images/s"] == 2
    assert ours["share of peak"] == pytest.approx(2 * 4000 / 2 / 16_000)
    assert plain["times as long"] == pytest.approx(1.1) and plain["version"] == "torch 9"
    assert capsys.readouterr().out.startswith("PyTorch, compiled: not run: a job stopped (no compiler)")


def test_a_class_is_beside_as_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer steps once for each student and asks its teacher each time; here all ask it once."""
    told(tmp_path, monkeypatch, distill_lib=(FACTS, 2.0), plain=(FACTS, 1.0), compiled=({}, 0))
    monkeypatch.setattr(step, "CASES", {"mix": TINY._replace(students=8)})
    ours, plain = step.measure(cases=tuple(step.CASES), rounds=2, torch=sys.executable)
    assert (ours["step"].median, plain["step"].median, plain["times as long"]) == (2, 8, 4)
    assert ours["images/s"] == 4 * 8 / 2 and plain["images/s"] == 4
    products = {"ours": 4 * (8 * 300 + 700), "plain": 4 * 8 * (300 + 700)}
    assert ours["share of peak"] == pytest.approx(2 * products["ours"] / 2 / 16_000)
    assert plain["share of peak"] == pytest.approx(2 * products["plain"] / 8 / 16_000)


@pytest.mark.slow
def test_a_class_of_the_benchmark_moves_all_its_students(tmp_path: Path) -> None:
    """By the same batch: students that begin alike stay alike, and none stays as it was."""
    case = TINY._replace(students=3)
    job, _ = step.prepare(json.loads(json.dumps(step.describe(case, case.recipe(), tmp_path))))
    taught: Any = job.__self__  # type: ignore[attr-defined]
    job()  # the warm-up begins at 0
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(taught.states[0].variables)]
    job()
    first, *others = ([np.asarray(leaf) for leaf in jax.tree.leaves(state.variables)] for state in taught.states)
    assert len(others) == 2 and all(all(map(np.array_equal, first, other)) for other in others)
    assert not all(map(np.array_equal, before, first))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"device": "cpu"}, "device cpu instead of gpu"),
        ({"logits": {"student": [[1.0, -4.1]], "teacher": [[2.0, 0.0]]}}, r"logits differ by 0\.025"),
        ({"logits": {"student": [[1.0, float("nan")]], "teacher": [[2.0, 0.0]]}}, "logits differ by nan"),
    ],
)
def test_jobs_that_do_other_work_are_not_compared(
    other: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other networks, or the same with other weights, would make the ratio worthless."""
    told(tmp_path, monkeypatch, distill_lib=(FACTS, 2.0), plain=(FACTS | other, 2.0), compiled=({}, 0))
    with pytest.raises(DistillError, match=f"PyTorch, plain does other work in tiny: .*{said}"):
        step.measure(cases=tuple(step.CASES), rounds=2, torch=sys.executable)


def test_half_precision_rounds_more() -> None:
    """So more is allowed where the case asks for it."""
    theirs = FACTS | {"logits": {"student": [[1.0, -4.1]], "teacher": [[2.0, 0.0]]}}
    assert step.difference(TINY, "bfloat16", step.PLAIN, FACTS, theirs) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"torch": "/nowhere/python"}, "there is no Python at /nowhere/python: name one with --torch"),
        ({"big_vision": "/nowhere"}, "there is no checkout of big_vision at /nowhere"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_what_is_not_there_is_told_before_anything_runs(options: dict[str, str], said: str) -> None:
    """One line, with the path."""
    with pytest.raises(DistillError, match=said):
        step.measure(cases=tuple(step.CASES), **options)


def test_a_python_without_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the option that names it, and the last line of what the job said."""
    told(tmp_path, monkeypatch, distill_lib=(FACTS, 2.0), plain=({}, 0))
    with pytest.raises(DistillError, match=r"a job stopped \(no compiler\): check that --torch names a Python"):
        step.measure(cases=tuple(step.CASES), rounds=2, torch=sys.executable)


def test_every_case_can_be_described(tmp_path: Path) -> None:
    """Jobs read it as JSON; weights have the checkpoints' names, scales are 1, biases 0 and kernels neither."""
    case = step.CASES["mix"]
    about = json.loads(json.dumps(step.describe(case, case.recipe(), tmp_path)))
    roles = about["roles"]
    assert list(roles) == ["student", "teacher"] and roles["student"]["stages"] == [1, 1, 1]
    assert np.load(about["images"]).shape == (8 * 128, 28, 28, 1)
    check = np.load(about["check"])
    assert (check[:, 0] == 0).all() and (check[:, 1:-1, 1:-1] != 0).all() and np.abs(check).max() <= 1
    with np.load(roles["teacher"]["weights"]) as file:
        assert (file["norm-pre-head/scale"] == 1).all() and (file["norm-pre-head/bias"] == 0).all()
        assert file["block1/unit01/conv2/kernel"].std() == pytest.approx(1 / np.sqrt(9 * 24), rel=0.1)

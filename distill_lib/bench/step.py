"""One distillation step, beside the released big_vision code and a plain PyTorch loop, on the same networks and batch.

On a CPU: the paper's networks with few images, so that a step takes seconds, and the small networks of the embedded
study. On an accelerator: the paper's networks in bfloat16. Plain PyTorch and big_vision standardise the weights of the
frozen teacher in every step. The row of PyTorch with a folded teacher, as this library has it, says how much of a ratio
is that, and how much is the speed of the compiled programs.

Crops come from the host for the paper's networks, as in both released pipelines: mixup, both networks and the optimiser
are timed. For the small ones the images lie on the device, and the crop, mirroring and mixup are part of the step.
Every job has its own process and the same random weights and images; what it computes is compared before it is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_lib.bench import process, timing
from distill_lib.bench.cases import CASES, COMPILED, FOLDED, PLAIN, Case, describe, difference
from distill_lib.errors import DistillError

COMMIT = "0127fb6b337ee2a27bf4e54dea79cff176527356"  # of big_vision, where it is cloned
REPOSITORY = "https://github.com/google-research/big_vision"
TORCH = ("torch==2.13.0", "numpy")
BIG_VISION = ("einops", "ml_collections", "absl-py", "tensorflow-cpu", "tensorflow-datasets")
OURS = "distill_lib"
MODULES = {OURS: "distill_step", "big_vision": "big_vision_step"}


@dataclass(frozen=True)
class Place:
    """Where a peer runs: its interpreter, what to check where it stops, and what its case needs besides."""

    python: str | None
    check: str
    missing: str = ""  # why there is no interpreter
    extra: dict[str, str] = field(default_factory=dict)
    version: str = ""


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times a step of each case in this library and in its peers, in turn.

    `--torch` and `--big-vision-python` name a Python that has PyTorch and what big_vision imports, and `--big-vision` a
    checkout of it; `install` makes one that is thrown away. `--batch` is for all cases.

    Returns:
        A row for each case and form: seconds a step, or of a step for each student of a class, images a second, how
        many times as long as this library's step, the goal and whether it is met, achieved share of the measured peak,
        and what says that it is the same work.
    """
    peers = dict.fromkeys(("torch", "big_vision", "big_vision_python"))
    options = timing.options(measure, arguments, rounds=7, **peers, cases=tuple(CASES), batch=0)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the accelerator
    import jax

    rows = []
    with contextlib.ExitStack() as stack:
        places = _places(options, stack)
        for name in options.cases:
            case = CASES[name]
            if case.accelerator != (jax.default_backend() != "cpu"):
                reason = "not run: no accelerator here" if case.accelerator else "not run: for CPUs"
                rows += [_row(case, form, reason) for form in (OURS, *case.forms)]
                continue
            rows += _rows(case, places, options)
    return rows


def _places(options: argparse.Namespace, stack: contextlib.ExitStack) -> dict[str, Place]:
    """Interpreters of all forms; what is to be installed is installed, what is wrong is told before anything runs."""
    torch = stack.enter_context(process.interpreter(options.torch, "PyTorch", "--torch", TORCH))
    plain = Place(torch, "that --torch names a Python that has PyTorch", "name a Python that has it: --torch")
    places = {OURS: Place(sys.executable, "that this library runs"), PLAIN: plain, FOLDED: plain, COMPILED: plain}
    if not options.big_vision:
        return places | {"big_vision": Place(None, "", "name a checkout: --big-vision")}
    checkout = stack.enter_context(_checkout(options.big_vision))
    own = [f"{name}=={importlib.metadata.version(name)}" for name in ("jax", "flax", "optax")]
    wanted, about = options.big_vision_python or "install", "what big_vision imports"
    python = stack.enter_context(process.interpreter(wanted, about, "--big-vision-python", [*own, *BIG_VISION]))
    check = f"that --big-vision-python names a Python that has {about}"
    extra = {"checkout": checkout}
    return places | {"big_vision": Place(python, check, extra=extra, version=_commit(checkout))}


@contextlib.contextmanager
def _checkout(wanted: str) -> Iterator[str]:
    """The checkout that is named, or a clone that is thrown away afterwards."""
    if wanted != "install":
        if not Path(wanted, "big_vision", "models", "bit_paper.py").is_file():
            raise DistillError(f"there is no checkout of big_vision at {wanted}: name one, or say install.")
        yield str(Path(wanted).absolute())
        return
    with tempfile.TemporaryDirectory() as folder:
        for command in (["clone", "--quiet", REPOSITORY, folder], ["-C", folder, "checkout", "--quiet", COMMIT]):
            if subprocess.run(["git", *command]).returncode:
                raise DistillError("big_vision could not be cloned: give the path of a checkout to --big-vision.")
        yield folder


def _commit(checkout: str) -> str:
    found = subprocess.run(["git", "-C", checkout, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"commit {found.stdout.strip() or 'unknown'}"


def _rows(case: Case, places: dict[str, Place], options: argparse.Namespace) -> list[dict[str, Any]]:
    batch = options.batch or case.batch
    rows = {form: _row(case, form, "") | {"images": batch} for form in (OURS, *case.forms)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        about = describe(case, batch, Path(folder))
        jobs: dict[str, process.Job] = {}
        for form, row in rows.items():
            if places[form].python is None:
                row["step"] = f"not run: {places[form].missing}"
                continue
            try:
                job = jobs[form] = stack.enter_context(_job(form, about, places[form]))
            except DistillError as error:
                if form != COMPILED:  # wants a compiler of its own, which need not be there
                    raise
                row["step"] = f"not run: {error}"
                continue
            version = " ".join(filter(None, [places[form].version, job.facts.get("version", "")]))
            row |= {"logits differ by": difference(case, form, jobs[OURS].facts, job.facts), "version": version}
        runs = {form: 1 if form == OURS else case.students for form in jobs}
        spent = process.in_turn(jobs, {form: case.calls * runs[form] for form in jobs}, options.rounds)
    seconds = {form: timing.summary([runs[form] * wall for wall, _ in spent[form]]) for form in jobs}
    for form, job in jobs.items():
        rows[form] |= _measured(case, form, seconds, batch, jobs[OURS].facts)
        rows[form] |= {f"{role} parameters": job.facts["parameters"].get(role) for role in ("student", "teacher")}
    return list(rows.values())


def _job(form: str, about: dict[str, Any], place: Place) -> contextlib.AbstractContextManager[process.Job]:
    assert place.python is not None
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "distill_lib" / "jax")
    given = about | place.extra | {"form": form.rpartition(", ")[2].split()[0]}
    module, variables = MODULES.get(form, "torch_step"), {"JAX_COMPILATION_CACHE_DIR": cache}
    return process.job(place.python, module, given, check=place.check, environment=variables)


def _row(case: Case, form: str, reason: str) -> dict[str, Any]:
    """A row of the table, of a step that was not run for that reason."""
    row: dict[str, Any] = {"case": case.name, "form": form, "images": case.batch, "side": case.side}
    row |= {"dtype": "float32" if form == "big_vision" else case.dtype, "step": reason}
    row |= dict.fromkeys(("images/s", "times as long", "share of peak"))
    goal = case.goals.get(form)
    row |= {"goal": f"{_judged_by(form, goal)} at least {goal:g}" if goal else None, "met": None}
    return row | dict.fromkeys(("student parameters", "teacher parameters", "GMAC", "logits differ by", "version"))


def _judged_by(form: str, goal: float) -> str:
    if form != OURS:
        return "times as long"
    return "images/s" if goal > 1 else "share of peak"


def _measured(
    case: Case, form: str, seconds: dict[str, timing.Timing], batch: int, facts: dict[str, Any]
) -> dict[str, Any]:
    """What a step that was run adds to its row, from this library's facts."""
    step, goal = seconds[form], case.goals.get(form)
    work = batch * case.work(facts["macs"], shared=form == OURS)
    reached: dict[str, Any] = {
        "images/s": batch * case.students / step.median,
        "times as long": step.median / seconds[OURS].median,
        "share of peak": 2 * work / step.median / facts["peak"],
    }
    met = reached[_judged_by(form, goal)] >= goal if goal else None
    return {"step": step} | reached | {"met": met, "GMAC": work / 1e9}

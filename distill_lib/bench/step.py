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
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distill_lib
from distill_lib.bench import process, timing
from distill_lib.bench.cases import CASES, COMPILED, FOLDED, PLAIN, Case, describe, difference
from distill_lib.bench.timing import Timing, summary
from distill_lib.errors import DistillError

COMMIT = "0127fb6b337ee2a27bf4e54dea79cff176527356"  # of big_vision, where it is cloned
REPOSITORY = "https://github.com/google-research/big_vision"
TORCH = ("torch==2.13.0", "numpy")
BIG_VISION = ("einops", "ml_collections", "absl-py", "tensorflow-cpu", "tensorflow-datasets")
PEERS = Path(__file__).parent / "peers"
MODULES = {"distill_lib": "distill_step", "big_vision": "big_vision_step"}


@dataclass(frozen=True)
class Place:
    """Where a peer runs: its interpreter and what its case needs besides; without one, why not."""

    python: str | None
    check: str
    missing: str
    extra: dict[str, str]
    version: str = ""


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times a step of each case in this library and in its peers, in turn.

    Args:
        arguments: `--torch PYTHON` or `--torch install`, `--big-vision CHECKOUT` or `--big-vision install`,
            `--big-vision-python PYTHON`, `--rounds N`, `--cases NAME ...`, `--batch N`.

    Returns:
        A row for each case and form: seconds a step, or of a step for each student of a class, images a second, how
        many times as long as this library's step, the goal and whether it is met, achieved share of the measured peak,
        and what says that it is the same work.
    """
    parser = timing.parser(measure, rounds=7)
    parser.add_argument("--torch", help="a Python that has PyTorch, or `install` for a throw-away one")
    parser.add_argument("--big-vision", help="a checkout of big_vision, or `install` to clone it")
    parser.add_argument("--big-vision-python", help="a Python that has what big_vision imports; else one is made")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--batch", type=int, help="images a step, in all cases")
    options = parser.parse_args(arguments)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the accelerator
    import jax

    rows = []
    with contextlib.ExitStack() as stack:
        places = _places(options, stack)
        for name in options.cases:
            case = CASES[name]
            if case.accelerator != (jax.default_backend() != "cpu"):
                reason = "not run: no accelerator here" if case.accelerator else "not run: for CPUs"
                rows += [_row(case, form, reason) for form in ("distill_lib", *case.forms)]
                continue
            rows += _rows(case, places, options)
    return rows


def _places(options: argparse.Namespace, stack: contextlib.ExitStack) -> dict[str, Place]:
    """Interpreters of all forms; what is to be installed is installed, what is wrong is told before anything runs."""
    root = os.pathsep.join([str(Path(distill_lib.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ours = Place(sys.executable, "that this library runs", "", {"PYTHONPATH": root.rstrip(os.pathsep)})
    torch = stack.enter_context(process.interpreter(options.torch, "PyTorch", "--torch", TORCH))
    plain = Place(torch, "that --torch names a Python that has PyTorch", "name a Python that has it: --torch", {})
    places = {"distill_lib": ours, PLAIN: plain, FOLDED: plain, COMPILED: plain}
    missing = "name a checkout: --big-vision"
    if not options.big_vision:
        return places | {"big_vision": Place(None, "", missing, {})}
    checkout = stack.enter_context(_checkout(options.big_vision))
    python = stack.enter_context(
        process.interpreter(
            options.big_vision_python or "install",
            "what big_vision imports",
            "--big-vision-python",
            [*(f"{name}=={importlib.metadata.version(name)}" for name in ("jax", "flax", "optax")), *BIG_VISION],
        )
    )
    check = "that --big-vision-python names a Python that has what big_vision imports"
    return places | {"big_vision": Place(python, check, missing, {"checkout": checkout}, _commit(checkout))}


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
    batch, forms = options.batch or case.batch, ("distill_lib", *case.forms)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        about = describe(case, batch, Path(folder))
        jobs: dict[str, process.Job] = {}
        reasons: dict[str, str] = {}
        differences: dict[str, float] = {}
        for form in forms:
            if places[form].python is None:
                reasons[form] = f"not run: {places[form].missing}"
                continue
            try:
                job = jobs[form] = stack.enter_context(_job(form, about, places[form], Path(folder)))
            except DistillError as error:
                if form != COMPILED:  # wants a compiler of its own, which need not be there
                    raise
                reasons[form] = f"not run: {error}"
                continue
            differences[form] = difference(case, form, jobs["distill_lib"].facts, job.facts)
        spent: dict[str, list[float]] = {form: [] for form in jobs}
        for _ in range(options.rounds):
            for form, job in jobs.items():
                runs = 1 if form == "distill_lib" else case.students
                spent[form].append(runs * job.ask(str(case.calls * runs)))
    rows = []
    for form in forms:
        row = _row(case, form, reasons.get(form, "")) | {"images": batch}
        if form in jobs:
            version = " ".join(filter(None, [places[form].version, jobs[form].facts.get("version", "")]))
            row |= _measured(case, form, {name: summary(each) for name, each in spent.items()}, batch, jobs)
            row |= {"logits differ by": differences[form], "version": version}
        rows.append(row)
    return rows


@contextlib.contextmanager
def _job(form: str, about: dict[str, Any], place: Place, folder: Path) -> Iterator[process.Job]:
    assert place.python is not None
    module = MODULES.get(form, "torch_step")
    own = place.extra if form == "big_vision" else {}
    path = folder / f"{module}.json"
    path.write_text(json.dumps(about | own | {"form": form.rpartition(", ")[2].split()[0]}), encoding="utf-8")
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "distill_lib" / "jax")
    variables = {"JAX_COMPILATION_CACHE_DIR": cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
    variables |= place.extra if form == "distill_lib" else {}
    command = [place.python, str(PEERS / "serve.py"), module, str(path)]
    with process.job(command, check=place.check, environment=variables) as job:
        yield job


def _row(case: Case, form: str, reason: str) -> dict[str, Any]:
    """A row of the table, of a step that was not run for that reason."""
    row: dict[str, Any] = {"case": case.name, "form": form, "images": case.batch, "side": case.side}
    row |= {"dtype": "float32" if form == "big_vision" else case.dtype, "step": reason}
    row |= dict.fromkeys(("images/s", "times as long", "share of peak"))
    goal = case.goals.get(form)
    row |= {"goal": f"{_judged_by(form, goal)} at least {goal:g}" if goal else None, "met": None}
    return row | dict.fromkeys(("student parameters", "teacher parameters", "GMAC", "logits differ by", "version"))


def _judged_by(form: str, goal: float) -> str:
    if form != "distill_lib":
        return "times as long"
    return "images/s" if goal > 1 else "share of peak"


def _measured(
    case: Case, form: str, seconds: dict[str, Timing], batch: int, jobs: dict[str, process.Job]
) -> dict[str, Any]:
    """What a step that was run adds to its row."""
    ours, own, goal = jobs["distill_lib"].facts, seconds[form], case.goals.get(form)
    work = batch * case.work(ours["macs"], shared=form == "distill_lib")
    found: dict[str, Any] = {
        "step": own,
        "images/s": batch * case.students / own.median,
        "times as long": own.median / seconds["distill_lib"].median,
        "share of peak": 2 * work / own.median / ours["peak"],
    }
    counted = {f"{role} parameters": jobs[form].facts["parameters"].get(role) for role in ("student", "teacher")}
    met = found[_judged_by(form, goal)] >= goal if goal else None
    return found | counted | {"met": met, "GMAC": work / 1e9}

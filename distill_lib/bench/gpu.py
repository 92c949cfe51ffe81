"""Ten minutes of an accelerator: what has to be measured there, each part a process of its own with a limit of time.

Nothing is downloaded: weights are random or embedded, images mock or embedded. A part that fails, or takes too long, is
told and does not stop the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_lib import records
from distill_lib.bench import timing
from distill_lib.bench.process import send

FOLDER = "gpu"  # of the results folder; the records of the CPU stay
_BENCH = ("-m", "distill_lib.bench")
_FLOWERS = ("--dataset", "flowers", "--variant", "fast")
_FASHION = ("--dataset", "fashion", "--variant", "quick")
_CLASS = ("--forms", "1", "--made-up")
_STUDY = ("-m", "distill_lib", "run", "consistency", "-p", "dataset", "fashion", "-p", "variant")


@dataclass(frozen=True)
class Part:
    """A process: its name in the table, the seconds that it may take at most, and what follows the Python's name."""

    name: str
    seconds: float
    command: tuple[str, ...]


PARTS = (
    Part("step", 170, (*_BENCH, "step", "--cases", "accelerator", "--rounds", "5")),
    Part("200 steps", 140, (*_BENCH, "training", *_FLOWERS, "--steps", "200")),
    Part("class", 120, (*_BENCH, "sweep", *_FLOWERS, *_CLASS, "--rounds", "5")),
    Part("study", 150, (*_STUDY, "quick")),
)
SMALL = (
    Part("step", 120, (*_BENCH, "step", "--cases", "mix", "--rounds", "2", "--batch", "8")),
    Part("50 steps", 120, (*_BENCH, "training", *_FASHION, "--steps", "50")),
    Part("class", 120, (*_BENCH, "sweep", *_FASHION, *_CLASS, "--rounds", "2", "--students", "2")),
    Part("study", 120, (*_STUDY, "smoke", "-p", "policies", "[labels, same/ic]")),
)


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Runs all parts, one after the other, in less than ten minutes.

    `--out` is a results folder for the records; `--small` is what a CPU can do, and is taken where there is no
    accelerator; `--torch` names a Python that has PyTorch, beside which the step is timed.

    Returns:
        A row a part: whether it was done, and seconds. What a part measured is in its own record.
    """
    options = timing.options(measure, arguments, out=str(records.find_results() / FOLDER), small=False, torch=None)
    os.environ["DISTILL_RESULTS"] = str(
        Path(options.out).absolute()
    )  # of the parts, and of this benchmark's own record
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "distill_lib" / "jax"))
    rows = []
    for part in SMALL if options.small or not _accelerator() else PARTS:
        more = ("--torch", options.torch) if part.name == "step" and options.torch else ()
        print(f"{part.name}: at most {part.seconds:g} s", flush=True)
        began = time.perf_counter()
        outcome = _outcome(part, more)
        rows.append({"part": part.name, "outcome": outcome, "seconds": round(time.perf_counter() - began, 1)})
        print(f"{part.name}: {outcome}", flush=True)
    return rows


def _accelerator() -> bool:
    """Whether JAX has one; asked in another process, since one that has asked keeps memory of the device."""
    asked = subprocess.run([sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True)
    return asked.stdout.strip() not in (b"cpu", b"")


def _outcome(part: Part, more: tuple[str, ...]) -> str:
    """Runs a part, and ends it with all of its own processes where its time is over or this process is interrupted."""
    with subprocess.Popen([sys.executable, *part.command, *more], start_new_session=True) as process:
        try:
            code = process.wait(part.seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {part.seconds:g} s"
        finally:
            send(process, "SIGKILL")
    return f"failed with exit code {code}, for the reason above" if code else "done"

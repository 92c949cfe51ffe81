"""Ten minutes of an accelerator: what has to be measured there, each part a process of its own with a limit of time."""

import os
import subprocess
import sys
import time

from benchmarks.process import send
from distill_lib import records
from distill_lib.report.benchmarks import GPU, Rows

PARTS = {  # seconds that each may take at most, and the command behind distill
    "step": (170, "bench step --cases accelerator --rounds 5"),
    "loop": (140, "bench loop --dataset flowers --variant fast --batches 512 --steps 400 --rounds 2 --starts 0"),
    "class": (120, "bench sweep --dataset flowers --variant fast --forms 1 --rounds 5"),
    "study": (150, "run consistency -p dataset fashion -p variant quick"),
}


def measure(torch: str | None = None) -> Rows:
    """Runs all parts in less than ten minutes; one that fails or takes too long does not stop the others.

    `--torch` names a Python with PyTorch. Records are written into the folder gpu in the results.

    Returns: a row a part: whether it was done, and seconds. What a part measured is in its own record.
    """
    os.environ["DISTILL_RESULTS"] = str((records.find_results() / GPU).absolute())  # of the parts and of this record
    rows = []
    for name, (limit, command) in PARTS.items():
        more = ["--torch", torch] if name == "step" and torch else []
        print(f"{name}: at most {limit} s", flush=True)
        began = time.perf_counter()
        outcome = run([sys.executable, "-m", "distill_lib", *command.split(), *more], limit)
        rows.append({"part": name, "outcome": outcome, "seconds": round(time.perf_counter() - began, 1)})
        print(f"{name}: {outcome}", flush=True)
    return rows


def run(command: list[str], seconds: float) -> str:
    """Runs a command, and ends it with all of its own processes where its time is over or this one is interrupted."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:g} s"
        finally:
            send(process, "SIGKILL")
    return f"failed with exit code {code}, for the reason above" if code else "done"

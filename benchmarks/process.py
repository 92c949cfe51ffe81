"""Jobs in interpreters of their own: asked for rounds of work in turn, and stopped in between.

A peer runs in the environment that it wants, beside this library in its own. A job that waits is stopped as a process,
so that none works ahead, or warms itself, while another is timed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from distill_lib.errors import DistillError

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"  # steps of other programs
SERVE = ("-m", "benchmarks.serve")


@dataclass(frozen=True)
class Place:
    """A job: a benchmark or a module of `PEERS`, in a Python that an option may name; DistillError if there is none."""

    module: str
    python: str | None = sys.executable
    option: str = ""

    def __post_init__(self) -> None:
        if self.python and not Path(self.python).exists():
            raise DistillError(f"there is no Python at {self.python}: name one with {self.option}, or leave it out.")


class Job(contextlib.AbstractContextManager["Job"]):
    """A process that does rounds of work on demand, and ends with the context; DistillError if it stops before.

    What it said when it was ready is in `facts`.
    """

    def __init__(self, place: Place, case: Mapping[str, Any], **variables: str) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), str(PEERS), os.environ.get("PYTHONPATH")]))
        self._place, self._messages = place, tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._messages}
        own = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
        own["JAX_COMPILATION_CACHE_DIR"] = getattr(jax.config, "jax_compilation_cache_dir", None) or ""
        command = [str(place.python), *SERVE, place.module]
        self._process = subprocess.Popen(command, text=True, env=own | variables, start_new_session=True, **pipes)
        self.facts = self.ask(case)

    def __exit__(self, *_: object) -> None:
        send(self._process, "SIGCONT")
        self._process.communicate()
        self._messages.close()

    def ask(self, question: Any) -> Any:
        """Wakes the job up for an answer: to a number of steps seconds a step, of the clock and of all threads."""
        send(self._process, "SIGCONT")
        pipes: Any = self._process
        with contextlib.suppress(BrokenPipeError):  # it has stopped: there is no answer
            pipes.stdin.write(f"{json.dumps(question)}\n")
            pipes.stdin.flush()
        if line := pipes.stdout.readline():
            send(self._process, "SIGSTOP")
            return json.loads(line)
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._messages.seek(0)
        option = self._place.option
        check = f": check that {option} names a Python that has what it imports" if option else ""
        with self._messages:
            last = (self._messages.read().strip() or "no message").splitlines()[-1]  # is why it stopped
        raise DistillError(f"a job stopped ({last}){check}.")


def start(
    stack: contextlib.ExitStack,
    places: Mapping[str, Place],
    case: Mapping[str, Any],
    optional: str = "",
    **variables: str,
) -> dict[str, Job]:
    """Jobs by form, which end with the stack; says which have no Python, or stopped where that form is optional."""
    jobs: dict[str, Job] = {}
    for form, place in places.items():
        if place.python is None:
            print(f"{form}: not run: name a Python that has it: {place.option}", flush=True)
            continue
        try:
            jobs[form] = stack.enter_context(Job(place, {**case, "form": form}, **variables))
        except DistillError as error:
            if form != optional:
                raise
            print(f"{form}: not run: {error}", flush=True)
    return jobs


def in_turn(jobs: dict[str, Job], steps: dict[str, int], rounds: int) -> dict[str, list[list[float]]]:
    """Asks jobs for steps in turn; by name, what each answered in every round."""
    spent = [[job.ask(steps[name]) for name, job in jobs.items()] for _ in range(rounds)]
    return dict(zip(jobs, map(list, zip(*spent, strict=True)), strict=True))


def send(process: subprocess.Popen[Any], name: str) -> None:
    """Sends a signal to a process of its own session and to what it has started, where the system knows that."""
    if hasattr(os, "killpg") and process.poll() is None:
        os.killpg(process.pid, getattr(signal, name))

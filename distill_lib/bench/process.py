"""Jobs in interpreters of their own: asked for rounds of work in turn, and stopped in between.

A peer runs in the environment that it wants, beside this library in its own. A job that waits is stopped as a process,
so that none works ahead, or warms itself, while another is timed.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax

from distill_lib.errors import DistillError

PEERS = Path(__file__).parent / "peers"


class Job(contextlib.AbstractContextManager["Job"]):
    """A process that does rounds of work on demand, by a module of `PEERS`; it ends with the context.

    It runs the Python that `option` named. What it said when it was ready is in `facts`. DistillError if it stops.
    """

    def __init__(self, python: str, module: str, case: dict[str, Any], option: str = "", **variables: str) -> None:
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        self._option, self._messages = option, tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._messages}
        own = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path} | variables
        own["JAX_COMPILATION_CACHE_DIR"] = getattr(jax.config, "jax_compilation_cache_dir", None) or ""
        command = [python, str(PEERS / "serve.py"), module]
        self._process = subprocess.Popen(command, text=True, env=own, start_new_session=True, **pipes)
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
        check = f": check that {self._option} names a Python that has what it imports" if self._option else ""
        with self._messages:
            raise DistillError(f"a job stopped ({last_line(self._messages.read())}){check}.")


def in_turn(jobs: dict[str, Job], steps: dict[str, int], rounds: int) -> dict[str, list[list[float]]]:
    """Asks jobs for steps in turn; by name, what each answered in every round."""
    spent = [[job.ask(steps[name]) for name, job in jobs.items()] for _ in range(rounds)]
    return dict(zip(jobs, map(list, zip(*spent, strict=True)), strict=True))


def send(process: subprocess.Popen[Any], name: str) -> None:
    """Sends a signal to a process of its own session and to what it has started, where the system knows that."""
    if hasattr(os, "killpg") and process.poll() is None:
        os.killpg(process.pid, getattr(signal, name))


def last_line(text: str) -> str:
    """What a process says last is why it stopped."""
    return (text.strip() or "no message").splitlines()[-1]


def check_python(python: str | None, option: str) -> None:
    """Raises DistillError if an option names a Python that is not there."""
    if python and not Path(python).exists():
        raise DistillError(f"there is no Python at {python}: name one with {option}, or leave it out.")

"""Jobs in interpreters of their own: asked for rounds of work in turn, and stopped in between.

A peer runs in the environment that it wants, beside this library in its own. A job that waits is stopped as a process,
so that none works ahead, or warms itself, while another is timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill_lib.errors import DistillError

PEERS = Path(__file__).parent / "peers"


class Job:
    """A process that does rounds of work on demand: `serve.py` with a peer's module.

    Attributes:
        facts: what it said when it was ready.
    """

    def __init__(self, process: subprocess.Popen[str], messages: Any, check: str) -> None:
        self._process, self._messages, self._check = process, messages, check
        self.facts = self._answer()
        send(self._process, "SIGSTOP")

    def ask(self, steps: int) -> list[float]:
        """Wakes the job up for so many steps: seconds a step, by the clock and of all its processors.

        Raises:
            DistillError: if the job has stopped, with the last line that it wrote.
        """
        assert self._process.stdin is not None
        send(self._process, "SIGCONT")
        with contextlib.suppress(BrokenPipeError):  # it has stopped: the answer says so
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        answer = self._answer()
        send(self._process, "SIGSTOP")
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._messages.seek(0)
        raise DistillError(f"a job stopped ({last_line(self._messages.read())}): check {self._check}.")


def send(process: subprocess.Popen, name: str) -> None:
    """Sends a signal to a process of its own session and to what it has started, where the system knows that."""
    if hasattr(os, "killpg") and process.poll() is None:
        os.killpg(process.pid, getattr(signal, name))


def last_line(text: str) -> str:
    """What a process says last is why it stopped."""
    return (text.strip() or "no message").splitlines()[-1]


@contextlib.contextmanager
def job(
    python: str, module: str, case: dict[str, Any], *, check: str, environment: dict[str, str] | None = None
) -> Iterator[Job]:
    """Starts a peer's job, and ends it afterwards.

    Args:
        python: the interpreter.
        module: of the folder `PEERS`.
        case: what its `prepare` is given.
        check: what the user should look at if it stops, such as "that --torch names a Python that has PyTorch".
        environment: variables that it has besides those of this process.

    Raises:
        DistillError: if it stops before it is ready.
    """
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path} | (environment or {})
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", errors="replace") as messages:
        file = Path(folder, "case.json")
        file.write_text(json.dumps(case), encoding="utf-8")
        with subprocess.Popen(
            [python, str(PEERS / "serve.py"), module, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=os.environ | variables,
            start_new_session=True,
        ) as process:
            try:
                yield Job(process, messages, check)
            finally:
                send(process, "SIGCONT")
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()  # type: ignore[union-attr]


def in_turn(jobs: dict[str, Job], steps: dict[str, int], rounds: int) -> dict[str, list[list[float]]]:
    """Asks jobs for steps in turn; by name, what each answered in every round."""
    spent: dict[str, list[list[float]]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            spent[name].append(job.ask(steps[name]))
    return spent


def answer(script: str, given: Any, environment: dict[str, str]) -> Any:
    """What a script in a process of its own prints last, as JSON; DistillError with its last line if it fails."""
    command = [sys.executable, "-c", script, json.dumps(given)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise DistillError(f"a process stopped: {last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def interpreter(wanted: str | None, name: str, option: str, packages: Sequence[str]) -> Iterator[str | None]:
    """The Python of a peer: the one that the option names, or a new one that is thrown away if it says "install".

    Raises:
        DistillError: if there is no such file, or the packages cannot be installed.
    """
    if wanted != "install":
        if wanted and not Path(wanted).exists():
            raise DistillError(f"there is no Python at {wanted}: name one that has {name}, or say install.")
        yield wanted
        return
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder, "Scripts" if os.name == "nt" else "bin", "python"))
        for command in ([sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "--quiet", *packages]):
            if subprocess.run(command).returncode:
                raise DistillError(f"{name} could not be installed: give a Python that has it to {option}.")
        yield python

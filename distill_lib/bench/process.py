"""Jobs in interpreters of their own: asked for rounds of work in turn, and stopped in between.

A peer runs in the environment that it wants, beside this library in its own. A job that waits is stopped as a process,
so that none works ahead, or warms itself, while another is timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from distill_lib.errors import DistillError


@dataclass(frozen=True)
class Job:
    """A process that does rounds of work on demand.

    Attributes:
        process: it answers a line on its standard input with a line of JSON.
        messages: its standard error, a file.
        check: what to look at where it stops, in words.
        facts: what it said when it was ready.
    """

    process: subprocess.Popen[str]
    messages: IO[str]
    check: str
    facts: Any = None

    def ask(self, question: str = "") -> Any:
        """Wakes the job up for one question; its answer.

        Raises:
            DistillError: if the job has stopped, with the last line that it wrote.
        """
        assert self.process.stdin is not None
        self.signal("SIGCONT")
        with contextlib.suppress(BrokenPipeError):  # it has stopped: the answer says so
            self.process.stdin.write(f"{question}\n")
            self.process.stdin.flush()
        answer = self.answer()
        self.signal("SIGSTOP")
        return answer

    def answer(self) -> Any:
        """The next line that the job prints; DistillError if there will be none."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.process.wait()
        self.messages.seek(0)
        last = (self.messages.read().strip() or "no message").splitlines()[-1]
        raise DistillError(f"a job stopped ({last}): check {self.check}.")

    def signal(self, name: str) -> None:
        """Stops or continues the job with its workers, where the system knows that."""
        if hasattr(os, "killpg") and self.process.poll() is None:
            os.killpg(self.process.pid, getattr(signal, name))


@contextlib.contextmanager
def job(command: Sequence[str], *, check: str, environment: dict[str, str] | None = None) -> Iterator[Job]:
    """Starts a job, and ends it afterwards.

    Args:
        command: program and arguments.
        check: what the user should look at if it stops, such as "that --torch names a Python that has PyTorch".
        environment: variables that it has besides those of this process.

    Yields:
        The job, once it has said that it is ready; it is stopped.

    Raises:
        DistillError: if it stops before that.
    """
    with (
        tempfile.TemporaryFile("w+", errors="replace") as messages,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=os.environ | (environment or {}),
            start_new_session=True,
        ) as process,
    ):
        begun = Job(process, messages, check)
        try:
            ready = dataclasses.replace(begun, facts=begun.answer())
            ready.signal("SIGSTOP")
            yield ready
        finally:
            begun.signal("SIGCONT")
            with contextlib.suppress(BrokenPipeError):
                if process.stdin is not None:
                    process.stdin.close()


@contextlib.contextmanager
def interpreter(wanted: str | None, name: str, option: str, packages: Sequence[str]) -> Iterator[str | None]:
    """The Python of a peer: the one that is named, or a new one that is thrown away afterwards.

    Args:
        wanted: a path, "install", or None for none.
        name: of the peer, for errors.
        option: of the command line that names it, for errors.
        packages: what pip installs.

    Yields:
        Its path, or None.

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

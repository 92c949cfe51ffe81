"""Running experiment notebooks with papermill, and checking their parameters, where papermill itself only warns."""

import contextlib
import json
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from distill_lib.errors import DistillError, unknown

EXPERIMENTS = Path("book") / "experiments"
_JUPYTER_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open", "declared", "notebooks"}


def refuse_unknown(declared: Iterable[str], present: Iterable[str]) -> None:
    """DistillError where names after papermill's injected cell are not those after the parameters cell (`dir()`)."""
    names = (
        [each for each in several if each[0] != "_" and each not in _JUPYTER_NAMES] for several in (present, declared)
    )
    refuse(*names)


def refuse(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises DistillError for the first of the names that is no known parameter."""
    if other := next((name for name in names if name not in known), None):
        raise unknown("parameter", other, known)


def find(name: str, start: Path | None = None) -> Path:
    """The notebook of that name in the project that holds `start` (None: the working folder), or path; DistillError."""
    folder = _folder(start)
    path = Path(name) if name.endswith(".ipynb") else folder / f"{name}.ipynb"
    if not path.is_file():
        raise unknown("notebook", name, sorted(path.stem for path in folder.glob("*.ipynb")))
    return path


def copy_name(notebook: Path) -> str:
    """The name of an executed copy: each of several processes that train together leaves its own."""
    number = os.environ.get("JAX_PROCESS_ID") or os.environ.get("SLURM_PROCID") or "0"
    return notebook.name if number == "0" else f"{notebook.stem}_{number}.ipynb"


def listing(start: Path | None = None) -> str:
    """The notebooks of `find` as text: name, title and cost, in its own words; DistillError for none or a bad one."""
    paths = sorted(_folder(start).glob("*.ipynb"))
    if not paths:
        raise DistillError(f"there are no notebooks in {_folder(start)}: call this in the project's folder.")
    return "\n\n".join(f"{path.stem}: {_title_and_cost(path)}" for path in paths)


def _title_and_cost(notebook: Path) -> str:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = "".join("".join(cell["source"]) + "\n\n" for cell in cells if cell["cell_type"] == "markdown")
    except (ValueError, KeyError, TypeError) as error:
        raise DistillError(f"{notebook} is not a notebook ({error}).") from error
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    cost = re.search(r"^\*\*Cost\*\*: (.+?)\n\n", text, re.MULTILINE | re.DOTALL)
    lines = textwrap.wrap(cost[1] if cost else "it does not say what it costs.", 100, break_on_hyphens=False)
    return "\n    ".join([title[1] if title else "", *lines])


def _folder(start: Path | None) -> Path:
    start = start or Path.cwd()
    folders = (parent / EXPERIMENTS for parent in (start, *start.parents))
    return next((folder for folder in folders if folder.is_dir()), start)


def parameters_of(notebook: Path) -> dict[str, bool]:
    """Whether the default of each parameter that a notebook declares is a list; DistillError if it is no notebook."""
    papermill = _papermill()
    try:
        known = papermill.inspect_notebook(notebook)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DistillError(f"{notebook} is not a notebook ({' '.join(str(error).split())}).") from error
    return {name: about["default"].startswith("[") for name, about in known.items() if name not in _JUPYTER_NAMES}


class Screen:
    """Passes a notebook's output on as it comes; at a terminal a line of progress is written over by the next one."""

    _UNFINISHED = re.compile(r"(.*: step (\d+)/(?!\2,)\d+, .*)\n")

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.flush, self._end = stream, stream.flush, ""

    def write(self, text: str) -> None:
        """Takes any piece of text."""
        for line in text.splitlines(keepends=True):
            if self._stream.isatty():  # ESC [ K clears what is left of the line that is written over
                line = "\x1b[K" + self._UNFINISHED.sub("\\1\r", line)
            self._stream.write(line)
            self._end = line[-1]

    def close(self) -> None:
        """Leaves a line of progress that nothing was written over."""
        self._stream.write("\n" if self._end == "\r" else "")


def run(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Executes a notebook in the working folder, and shows its output as it comes; the copy is kept if a cell fails.

    A single value stands for a list of one. DistillError if a parameter is unknown, a cell fails, or for a full disk.
    """
    known = parameters_of(notebook)
    refuse(parameters, known)
    lists = {name: [value] for name, value in parameters.items() if known[name] and not isinstance(value, list | tuple)}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _execute(notebook, output, parameters | lists)
    except OSError as error:
        raise DistillError(
            f"cannot write {output} ({error.strerror or error}): make room there, or choose another with --output or "
            "DISTILL_RESULTS."
        ) from error


@contextlib.contextmanager
def channels() -> Iterator[Any]:
    """The configuration with which a notebook's process is spoken to through sockets in a folder of its own.

    Of notebooks that start together two may be given one TCP port, and one of them dies.
    """
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as folder:
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}} if os.name == "posix" else {})


def _papermill() -> Any:
    try:
        import papermill
    except ModuleNotFoundError as error:
        raise DistillError("notebooks need papermill: pip install 'distill_lib[book]'.") from error
    return papermill


@contextlib.contextmanager
def _beside(notebook: Path) -> Iterator[None]:
    """Lets a kernel import modules that lie beside its notebook, as one does that Jupyter starts in that folder."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(notebook.parent.absolute()), before]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    papermill = _papermill()
    from nbclient.exceptions import DeadKernelError

    files = [str(path.absolute()) for path in (notebook, output)]
    options: dict[str, Any] = {"cwd": str(Path.cwd()), "kernel_name": "python3", "progress_bar": False}
    options |= {"parameters": parameters, "stderr_file": Screen(sys.stderr)}
    try:
        with _beside(notebook), channels() as config, contextlib.closing(Screen(sys.stdout)) as screen:
            papermill.execute_notebook(*files, config=config, stdout_file=screen, **options)
    except papermill.PapermillExecutionError as error:
        print(f"The executed notebook, with the traceback: {output}", file=sys.stderr)
        first = next((line for line in error.evalue.splitlines() if line.strip()), "")
        raise DistillError(first if error.ename == DistillError.__name__ else f"{error.ename}: {first}") from error
    except DeadKernelError as error:
        raise DistillError(
            "the notebook's process was killed (is there enough memory?); the same command goes on where it stopped."
        ) from error

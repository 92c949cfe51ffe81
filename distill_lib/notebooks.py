"""Running experiment notebooks with papermill, and checking their parameters, which papermill itself only warns about."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill_lib.errors import DistillError, unknown


def refuse_unknown(declared: Iterable[str], present: Iterable[str]) -> None:
    """Stops a notebook that was given a parameter which it does not declare.

    Args:
        declared: names after the notebook's own parameters cell (its last line is `declared = dir()`).
        present: names after papermill's injected cell.

    Raises:
        DistillError: naming the parameter and listing the valid ones.
    """
    own = {name for name in declared if not name.startswith("_")} | {"declared"}
    for name in present:
        if not name.startswith("_") and name not in own | JUPYTER_NAMES:
            raise unknown("parameter", name, sorted(own - JUPYTER_NAMES))


JUPYTER_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open", "declared", "notebooks"}


def run(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Executes an experiment notebook from the project's root, showing its output as it comes.

    Args:
        notebook: the .ipynb file.
        output: where the executed copy goes.
        parameters: values of its parameters.

    Raises:
        DistillError: if the notebook is missing, a parameter is unknown, or a cell fails; nothing is executed in the
            first two cases.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    if not notebook.is_file():
        raise unknown("notebook", notebook.stem, sorted(path.stem for path in notebook.parent.glob("*.ipynb")))
    known = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in known:
            raise unknown("parameter", name, known)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=parameters,
            cwd=str(notebook.parent),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            log_output=False,
        )
    except PapermillExecutionError as error:
        reason = error.evalue if error.ename == "DistillError" else f"{error.ename}: {error.evalue}"
        raise DistillError(reason) from error


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m distill_lib.notebooks distill -p dataset flowers -p variant fast`."""
    from papermill.cli import _resolve_type

    parser = argparse.ArgumentParser(prog="python -m distill_lib.notebooks", description="Run an experiment notebook.")
    parser.add_argument("notebook", help="name of a notebook in book/experiments, or a path")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    parser.add_argument("--output", type=Path, default=None, help="where the executed copy goes")
    options = parser.parse_args(arguments)
    path = Path(options.notebook)
    if path.suffix != ".ipynb":
        path = Path("book/experiments") / f"{options.notebook}.ipynb"
    try:
        parameters = {name: _resolve_type(value) for name, value in options.p}
        run(path, options.output or Path("results/notebooks") / path.name, parameters)
    except DistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

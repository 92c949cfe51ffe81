"""The command `distill bench NAME`: the options of a benchmark are the arguments of its function."""

import argparse
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import timing
from distill_lib import sharding
from distill_lib.errors import DistillError, Parser, unknown
from distill_lib.report.benchmarks import Rows, as_text

NAMES = ("sweep", "input", "step", "study", "soft_labels", "loop", "optimizers", "latency", "gpu")


def main(words: Sequence[str]) -> None:
    """Runs a benchmark, named by the first word, prints its table and writes its file; DistillError for bad words."""
    name, *arguments = words or [""]
    sharding.use_compilation_cache()  # the paper's networks take minutes to compile
    rows = measure(name, arguments)
    path = timing.write(name, rows)
    print(f"{as_text(rows)}\n\nwritten to {path}", flush=True)


def measure(name: str, arguments: Sequence[str]) -> Rows:
    """Runs a benchmark and returns its rows; arguments and errors are those of `main`."""
    if name not in NAMES:
        raise unknown("benchmark", name, NAMES)
    module, function = ("step", "study") if name == "study" else (name, "measure")
    run: Callable[..., Rows] = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    options = vars(_parser(name, run).parse_args(arguments))
    if options.get("rounds", 2) < 2:
        raise DistillError(f"a median and its quartiles need at least 2 rounds, got --rounds {options['rounds']}.")
    return run(**options)


def _parser(name: str, run: Callable[..., Rows]) -> Parser:
    """Options by the defaults of a function: a tuple holds words to choose from, a list numbers."""
    about = inspect.getdoc(getattr(run, "func", run))  # of a partial that of its function
    parser = Parser(f"distill bench {name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in inspect.signature(run).parameters.values():
        default = option.default
        kind = str if default is None else type(default[0] if isinstance(default, list) else default)
        reading: dict[str, Any] = {"type": kind}
        if isinstance(default, tuple):
            reading = {"nargs": "+", "choices": default}
        elif isinstance(default, list):
            reading["nargs"] = "+"
        flag = f"--{option.name.replace('_', '-')}"
        parser.add_argument(flag, default=default, help=f"usually {default}", **reading)
    return parser

"""Command line: `python -m distill_lib.bench folding`."""

from __future__ import annotations

import importlib
import sys

from distill_lib.bench import timing
from distill_lib.errors import DistillError, unknown

NAMES = ("folding", "classroom", "input", "step", "store", "loop", "memory", "scaling", "roofline", "profile")


def main(arguments: list[str] | None = None) -> int:
    """Runs a benchmark, prints its table and writes its file."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    try:
        if name not in NAMES:
            raise unknown("benchmark", name, NAMES)
        rows = importlib.import_module(f"distill_lib.bench.{name}").measure(rest)
        path = timing.write(name, rows)
    except DistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{timing.table(rows)}\n\nwritten to {path}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

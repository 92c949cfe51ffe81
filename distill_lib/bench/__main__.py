"""Command line: `python -m distill_lib.bench folding`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from distill_lib.bench import timing
from distill_lib.errors import command_line, unknown

NAMES = (
    "folding", "sweep", "compile", "input", "step", "study", "soft_labels", "loop", "memory", "scaling", "roofline",
    "profile", "training", "gpu",
)  # fmt: skip


@command_line
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a benchmark, prints its table and writes its file."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name not in NAMES:
        raise unknown("benchmark", name, NAMES)
    rows = importlib.import_module(f"distill_lib.bench.{name}").measure(rest)
    path = timing.write(name, rows)
    print(f"{timing.table(rows)}\n\nwritten to {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

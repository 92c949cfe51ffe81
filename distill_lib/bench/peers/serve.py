"""Serves the steps of a module beside this file: `python serve.py MODULE CASE.json`.

The module's `prepare(case)` returns a function that does one step and waits for its end, and facts about it. This file
needs nothing but the standard library, since the interpreters that run it have little in common.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

WARM_UP = 3  # steps that are not timed: programs are compiled, memory is taken


def main() -> None:
    """Says the facts, then answers each line, a number of steps, with the seconds that a step took."""
    module, case = sys.argv[1:]
    step, facts = importlib.import_module(module).prepare(json.loads(Path(case).read_text(encoding="utf-8")))
    for _ in range(WARM_UP):
        step()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(json.dumps((time.perf_counter() - began) / int(line)), flush=True)


if __name__ == "__main__":
    main()

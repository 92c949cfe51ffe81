"""Serves the steps of a module: `python -m benchmarks.serve MODULE`, and its case in the first line of input.

The module's `prepare(case)` returns a function that does one step and waits for its end, and facts about it. This file
needs nothing but the standard library, since the interpreters that run it have little in common.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time

WARM_UP = 3  # steps that are not timed: programs are compiled, memory is taken


def main() -> None:
    """Says the facts, then answers each number of steps with seconds a step: of the clock, and of all threads."""
    case = json.loads(sys.stdin.readline())
    with contextlib.redirect_stdout(sys.stderr):  # answers alone go to the output
        if "cores" in case and hasattr(os, "sched_setaffinity"):  # at most so many
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-case["cores"] :])
        step, facts = importlib.import_module(sys.argv[1]).prepare(case)
        for _ in range(case.get("warm_up", WARM_UP)):
            step()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        for _ in range(case.get("made_ahead", 0)):  # by the round before
            step()
        began = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step()
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        print(json.dumps([wall / int(line), cpu / int(line)]), flush=True)


if __name__ == "__main__":
    main()

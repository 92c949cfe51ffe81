"""Programs that the benchmark of the step runs, each in an interpreter that has what it imports.

`serve.py` runs one of the others as a job. Only `distill_step` imports this library.
"""

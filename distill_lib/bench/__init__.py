"""Benchmarks: what was timed side by side, in one run on one machine, as medians and ratios.

`distill bench NAME` runs one of them, prints its table and writes results/benchmarks/NAME.json.
"""

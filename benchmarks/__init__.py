"""Benchmarks, timed side by side: `distill bench NAME` prints a table and writes results/benchmarks/NAME.json."""

"""Whether the programs of a step compile for TPUs and GPUs, what they take there, and whether anything is amiss.

XLA compiles for a described TPU (with libtpu) or GPU (with JAX's CUDA plugin) on any Linux machine. Each case has a
process of an environment with both, because an XLA check that fails ends the process. `nox -s compile` runs them; they
are not tests of pytest: tests/test_compiled.py runs what needs no such environment.
"""

"""Faults on purpose: kills, full disks, damage and a second process, and what became of the work.

`nox -s faults` runs them, in two minutes on one core; `-- long` tries every call and many more places. Not tests of
pytest: tests/test_faults.py runs a few.
"""

"""A study of eight students as a user pays for it: a class with one teacher, beside eight runs of compiled PyTorch."""

from __future__ import annotations

from typing import Any

from distill_lib.bench import step


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times steps of eight students in this library and in compiled PyTorch, in turn; options are those of `step`."""
    return step.measure(["--cases", "mix_8", "same_8", *arguments])

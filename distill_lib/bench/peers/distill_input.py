"""Batches of crops as this library makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import files


class Files:
    """Endlessly many examples of no class out of a few files, as `stream.batches` reads them."""

    def __init__(self, encoded: list[bytes]) -> None:
        self._encoded = encoded

    def __len__(self) -> int:
        return 10_000

    def encoded(self, index: int) -> Any:
        """An example."""
        from distill_lib.datasets import Encoded

        return Encoded(self._encoded[index % len(self._encoded)], 0, str(index))


def prepare(case: dict[str, Any]) -> tuple[Callable[[], Any], None]:
    """A function that makes the next batch, and no facts."""
    from distill_lib.input_pipeline import stream

    workers = 0 if case["cores"] == 1 else case["cores"]
    sizes = {"seed": 0, "batch_size": case["batch"], "student_size": case["side"]}
    made = stream.batches(Files(files.read(case)), **sizes, workers=workers)
    return lambda: next(made), None

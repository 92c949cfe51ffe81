"""Data sets by name: what they are, whether they are there, and their images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.datasets.cards import SPLITS, Dataset
    from distill_lib.datasets.prepare import Status, check, status
    from distill_lib.datasets.registry import class_names, fingerprint, get, names
    from distill_lib.datasets.source import (
        CANVAS,
        MEMORY_LIMIT,
        Arrays,
        Encoded,
        Source,
        arrays,
        first,
        fits,
        load,
        shrunk,
        training_images,
    )

__all__ = [
    "CANVAS",
    "MEMORY_LIMIT",
    "SPLITS",
    "Arrays",
    "Dataset",
    "Encoded",
    "Source",
    "Status",
    "arrays",
    "check",
    "class_names",
    "fingerprint",
    "first",
    "fits",
    "get",
    "load",
    "names",
    "shrunk",
    "status",
    "training_images",
]

__getattr__ = loader(
    __name__,
    {
        "cards": ["Dataset", "SPLITS"],
        "prepare": ["Status", "check", "status"],
        "registry": ["class_names", "fingerprint", "get", "names"],
        "source": [
            "Arrays",
            "CANVAS",
            "Encoded",
            "MEMORY_LIMIT",
            "Source",
            "arrays",
            "first",
            "fits",
            "load",
            "shrunk",
            "training_images",
        ],
    },
)

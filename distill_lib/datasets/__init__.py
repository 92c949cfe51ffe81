"""Data sets by name: what they are, whether they are there, and their images."""

from distill_lib.datasets.cards import SPLITS, Dataset
from distill_lib.datasets.prepare import Status, check, status
from distill_lib.datasets.source import (
    CANVAS,
    MEMORY_LIMIT,
    Arrays,
    Encoded,
    Source,
    arrays,
    class_names,
    digest,
    fingerprint,
    first,
    fits,
    get,
    load,
    names,
    shrunk,
    training_images,
)

__all__ = ["CANVAS", "MEMORY_LIMIT", "SPLITS", "Arrays", "Dataset", "Encoded", "Source", "Status", "arrays", "check"]
__all__ += ["class_names", "digest", "fingerprint", "first", "fits", "get", "load", "names", "shrunk", "status"]
__all__ += ["training_images"]

"""Teachers: networks that are frozen, embedded or published, and their soft labels where they are stored."""

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.teachers.teacher import EMBEDDED, Teacher, load, names, network, parts, resolve

__all__ = ["EMBEDDED", "Teacher", "load", "names", "network", "parts", "resolve"]

__getattr__ = loader(__name__, {"teacher": __all__})

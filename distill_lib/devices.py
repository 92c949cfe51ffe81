"""Accelerators and the peak that their makers state, for estimates of runs that nobody has started."""

from __future__ import annotations

from dataclasses import dataclass

from distill_lib.errors import unknown

_NVIDIA = "NVIDIA, data sheet of the {} (with sparsity twice as much)"
_GOOGLE = "Google Cloud, TPU documentation, system architecture of {}"


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: as its maker writes it; of a TPU, one chip.
        peak: floating-point operations a second of dense bfloat16 matrix products, two for each multiply-accumulate.
        source: of the peak.
    """

    name: str
    peak: float
    source: str


DEVICES = (
    Device("H200 SXM", 989e12, _NVIDIA.format("H200 Tensor Core GPU")),
    Device("H100 SXM", 989e12, _NVIDIA.format("H100 Tensor Core GPU")),
    Device("A100", 312e12, _NVIDIA.format("A100 Tensor Core GPU")),
    Device("TPU v3", 123e12, _GOOGLE.format("TPU v3")),
    Device("TPU v4", 275e12, _GOOGLE.format("TPU v4")),
    Device("TPU v5e", 197e12, _GOOGLE.format("TPU v5e")),
)


def names() -> list[str]:
    """Names of all devices whose peak is known."""
    return [device.name for device in DEVICES]


def get(name: str) -> Device:
    """Looks a device up by name.

    Raises:
        DistillError: if it is none of `names()`.
    """
    for device in DEVICES:
        if device.name == name:
            return device
    raise unknown("device", name, names())

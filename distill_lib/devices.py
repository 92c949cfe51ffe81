"""Accelerators and the peak that their makers state, for estimates of runs that nobody has started."""

from __future__ import annotations

from dataclasses import dataclass

from distill_lib.errors import unknown

_PAPER = "NVIDIA, white paper on the {}"
_SHEET = "NVIDIA, data sheet of the {} TFLOPS with sparsity, half of it without"
_GOOGLE = "Google Cloud, documentation of {}: peak compute per chip (bf16)"


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: as its maker writes it; of a TPU, one chip.
        peak: floating-point operations a second of dense bfloat16 matrix products that are summed in float32, two for
            each multiply-accumulate.
        source: of the peak.
    """

    name: str
    peak: float
    source: str


DEVICES = (
    Device("H200 SXM", 989.4e12, _SHEET.format("H200: 1,979")),
    Device("H100 SXM", 989.4e12, _PAPER.format("H100 architecture, table 3 (SXM5)")),
    Device("A100", 312e12, _PAPER.format("A100 architecture, table 4")),
    Device("B200 SXM", 2_250e12, _SHEET.format("HGX B200: 4,500")),
    Device("L4", 121e12, _SHEET.format("L4: 242")),
    Device("RTX 4090", 165.2e12, _PAPER.format("Ada architecture, appendix A")),
    Device("V100", 125e12, _PAPER.format("V100 architecture (SXM2; of float16, as it has no bfloat16)")),
    Device("TPU v3", 123e12, _GOOGLE.format("TPU v3")),
    Device("TPU v4", 275e12, _GOOGLE.format("TPU v4")),
    Device("TPU v5e", 197e12, _GOOGLE.format("TPU v5e")),
    Device("TPU v5p", 459e12, _GOOGLE.format("TPU v5p")),
    Device("TPU v6e", 918e12, _GOOGLE.format("TPU v6e")),
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

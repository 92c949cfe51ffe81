"""Accelerators and the peaks that their makers state, for estimates of runs that nobody has started.

What JAX makes of a product in float32 is its default precision: TensorFloat-32 on NVIDIA's GPUs since the A100, half as
fast as bfloat16; float32 on older ones; and one pass of bfloat16 on a TPU, as fast as bfloat16. So it is in its
documentation, "Matmul precision" (docs.jax.dev, 201/precision), and products are summed in float32 in all of them.
"""

from __future__ import annotations

from typing import NamedTuple

from distill_lib.errors import unknown

_PAPER = "NVIDIA, white paper on the {}"
_SHEET = "NVIDIA, data sheet of the {} TFLOPS in bfloat16 and TF32 with sparsity, half of it without"
_GOOGLE = "Google Cloud, documentation of {}: peak compute per chip (bf16)"


class Device(NamedTuple):
    """Peaks of an accelerator, of a TPU of a chip, and their source.

    They are floating-point operations a second of dense matrix products, two for each multiply-accumulate; that of
    float32 is at JAX's default precision.
    """

    bfloat16: float
    float32: float
    source: str

    def peak(self, dtype: str) -> float:
        """That of networks that compute in "bfloat16" or "float32"."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


DEVICES = {
    "H200 SXM": Device(989.4e12, 494.7e12, _SHEET.format("H200: 1,979 and 989")),
    "H100 SXM": Device(989.4e12, 494.7e12, _PAPER.format("H100 architecture, table 3 (SXM5)")),
    "A100": Device(312e12, 156e12, _PAPER.format("A100 architecture, table 4")),
    "B200 SXM": Device(2_250e12, 1_125e12, _SHEET.format("HGX B200: 4,500 and 2,250")),
    "L4": Device(121e12, 60e12, _SHEET.format("L4: 242 and 120")),
    "RTX 4090": Device(165.2e12, 82.6e12, _PAPER.format("Ada architecture, appendix A")),
    "V100": Device(15.7e12, 15.7e12, _PAPER.format("V100 architecture (SXM2; float32, as it has no bfloat16)")),
    "TPU v3": Device(123e12, 123e12, _GOOGLE.format("TPU v3")),
    "TPU v4": Device(275e12, 275e12, _GOOGLE.format("TPU v4")),
    "TPU v5e": Device(197e12, 197e12, _GOOGLE.format("TPU v5e")),
    "TPU v5p": Device(459e12, 459e12, _GOOGLE.format("TPU v5p")),
    "TPU v6e": Device(918e12, 918e12, _GOOGLE.format("TPU v6e")),
}
"""By the names that their makers write."""


def get(name: str) -> Device:
    """Looks a device up by name; raises DistillError if it is none of `DEVICES`."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return DEVICES[name]

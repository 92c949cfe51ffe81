"""Exported networks in 8 bits: ONNX Runtime reads them, and they answer nearly as before."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from benchmarks import latency, runner
from distill_lib import export, weights
from distill_lib.errors import DistillError

pytestmark = pytest.mark.usefixtures("tiny_models")


@pytest.mark.filterwarnings("ignore")  # of the converter
def test_a_network_in_8_bits_answers_nearly_as_before(tmp_path: Path) -> None:
    """Its logits move by a few hundredths of their range, and not at all only if nothing was rounded."""
    pytest.importorskip("jax2onnx", reason="the extra distill_lib[onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    facts = {"model": tiny.STUDENT, "resolution": 8, "input_range": [0.0, 1.0]}
    weights.save_npz(tmp_path / "network.npz", tiny.random_params(tiny.STUDENT, 10), facts)
    shown = np.random.default_rng(0).uniform(-1, 1, (64, 8, 8, 1)).astype(np.float32)
    with jax.numpy_rank_promotion("allow"):  # in Flax
        whole = export.export(tmp_path / "network.npz", "onnx", tmp_path / "network.onnx")
    before, after = (latency.in_onnx_runtime(path)(shown) for path in (whole, latency.in_8_bits(whole, shown)))
    moved = np.abs(after - before).max() / np.ptp(before)
    assert 1e-4 < moved < 0.1


def test_without_the_students_weights_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    with pytest.raises(DistillError, match="the playground's student of function matching is not in this results"):
        runner.measure("latency", [])

"""How long a student and its teacher take to answer, in JAX and in ONNX Runtime, there in whole numbers of 8 bits too.

It wants the extra `onnx` and onnxruntime, which `nox -s onnx` has in an environment of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np

from benchmarks import timing
from distill_lib import datasets, export, recipes, records, teachers, views
from distill_lib.errors import DistillError
from distill_lib.evaluation import metrics
from distill_lib.report.benchmarks import Rows

Program = Callable[[np.ndarray], np.ndarray]
INPUT = "images"  # of an exported network


def measure(rounds: int = 15, batch_sizes: list[int] = [1, 64], calibration: int = 256) -> Rows:  # noqa: B006
    """Times the playground's student of function matching and its teacher on test images of `fashion`, in turn.

    In 8 bits are weights, a scale for each output channel, and what layers are given, by so many training images.

    Returns: a row a network, program and batch: seconds a batch, times as fast as JAX, kB of the file, and top-1.
    DistillError where a package or the student's weights are missing.
    """
    names = {"student": str(_student()), "teacher": "fashion"}
    test, train = (datasets.arrays("fashion", split) for split in ("test", "train"))
    images, known = (np.asarray(views.normalize(each)) for each in (test.images, train.images[:calibration]))
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        for title, name in names.items():
            programs, sizes = _programs(name, known, Path(folder))
            top1 = {which: _top1(ask, images, test.labels) for which, ask in programs.items()}
            for count in batch_sizes:
                calls = {which: lambda ask=ask, count=count: ask(images[:count]) for which, ask in programs.items()}
                seconds = timing.interleaved(calls, rounds=rounds)
                rows += [
                    {"network": title, "program": which, "images": count, "batch": spent}
                    | {"times as fast": seconds["JAX"].median / spent.median, "kB": sizes[which], "top-1": top1[which]}
                    for which, spent in seconds.items()
                ]
    return rows


def _student() -> Path:
    runs = records.read(study="fashion_long")
    for run in runs[(runs["policy"] == "mix") & (runs["seed"] == 0)].to_dict("records"):
        path = records.find_results() / run["study"] / run["run_id"] / "student_f16.npz"
        if path.is_file():
            return path
    raise DistillError("the playground's student of function matching is not in this results folder.")


def _programs(name: str, known: np.ndarray, folder: Path) -> tuple[dict[str, Program], dict[str, float | None]]:
    """What answers, and the kB of its file."""
    resolution = recipes.get("fashion", "long").resolution
    network = teachers.load(name, num_classes=10, channels=1, resolution=resolution)
    ask = jax.jit(network.logits)
    whole = export.export(name, "onnx", folder / "network.onnx", resolution=resolution)
    files = {"ONNX Runtime": whole, "ONNX Runtime, 8 bits": in_8_bits(whole, known)}
    programs: dict[str, Program] = {"JAX": lambda images: np.asarray(ask(images))}
    programs |= {which: in_onnx_runtime(path) for which, path in files.items()}
    return programs, {"JAX": None} | {which: round(path.stat().st_size / 1e3, 1) for which, path in files.items()}


def in_onnx_runtime(path: Path) -> Program:
    """What asks an exported network there."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(None, {INPUT: images})[0]


def in_8_bits(path: Path, known: np.ndarray) -> Path:
    """The network in 8 bits, by ONNX Runtime's own tools: constants are computed first, for it rounds those alone."""
    try:
        import onnxruntime
        from onnxruntime import quantization
    except ImportError as error:
        raise DistillError("the benchmark latency needs onnxruntime: `nox -s onnx` brings it.") from error
    once = onnxruntime.SessionOptions()
    once.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    once.optimized_model_filepath = str(constants := path.with_suffix(".constants.onnx"))
    onnxruntime.InferenceSession(path, once)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands over the images in parts."""

        def __init__(self, parts: Iterable[np.ndarray]) -> None:
            self._parts = iter(parts)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next part by the input's name, or None."""
            part = next(self._parts, None)
            return None if part is None else {INPUT: part}

    target, kinds = path.with_suffix(".8bits.onnx"), ["Conv", "Gemm", "MatMul"]
    types = {"weight_type": quantization.QuantType.QInt8, "activation_type": quantization.QuantType.QUInt8}
    reader, options = Reader(np.array_split(known, 4)), {"per_channel": True, "op_types_to_quantize": kinds} | types
    quantization.quantize_static(str(constants), str(target), reader, **options)
    return target


def _top1(ask: Program, images: np.ndarray, labels: np.ndarray) -> float:
    logits = np.concatenate([ask(part) for part in np.array_split(images, 20)])
    return float(metrics.right(logits, labels).mean())

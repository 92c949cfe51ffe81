"""What this project set itself as goals for speed, beside what the committed benchmarks found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill_lib import records
from distill_lib.bench import timing

if TYPE_CHECKING:
    import pandas as pd

GPU = "gpu"  # folder of the results for records of an accelerator; those of the CPU stay


class Goal(NamedTuple):
    """The most, or the least, that a number of a record may be; where several rows hold it, the worst counts.

    Attributes:
        about: what it is about, in words.
        benchmark: name of the record.
        rows: values of the rows that hold the number.
        key: of the number; of a timing the median counts.
        limit: the most that it may be.
        at_least: whether the limit is the least instead.
        on_gpu: options of the command, where only a record from an accelerator counts.
    """

    about: str
    benchmark: str
    rows: dict[str, Any]
    key: str
    limit: float
    at_least: bool = False
    on_gpu: str | None = None

    def measured(self, results: Path) -> float | None:
        """The number; None where no record holds it."""
        contents = [timing.read(self.benchmark, place) for place in (results / GPU, results)]
        for content in filter(None, contents if self.on_gpu else contents[1:]):
            values = [row.get(self.key) for row in content["rows"] if self.rows.items() <= row.items()]
            numbers = [each.median if isinstance(each, timing.Timing) else each for each in values if each is not None]
            if numbers and not (self.on_gpu and content["device"].startswith("CPU")):
                return min(numbers) if self.at_least else max(numbers)
        return None

    def row(self, results: Path) -> dict[str, str]:
        """Goal, wanted, measured and verdict; what was not measured names the command that does."""
        value, limit = self.measured(results), timing.cell(self.key, float(self.limit))
        row = {"goal": self.about, "wanted": f"at {'least' if self.at_least else 'most'} {limit}"}
        if value is None:
            command = f"nox -s bench -- {self.benchmark}" + (f" {self.on_gpu} on a GPU" if self.on_gpu else "")
            return row | {"measured": "", "verdict": f"not run: {command}"}
        met = value >= self.limit if self.at_least else value <= self.limit
        missed = f"missed by {abs(value / self.limit - 1):.0%}"
        return row | {"measured": timing.cell(self.key, value), "verdict": "met" if met else missed}


_CLASS = {"form": "one program for each student", "students": 8}
_PAPER, _BIG_VISION = {"case": "R152x2 to R50x1"}, "step of R152x2 to R50x1: big_vision, times as long as ours"
_CLASS_ON_GPU = "--dataset flowers --variant fast --forms 1 --made-up"
_STEP_ON_GPU, _PER_RUN = "--cases accelerator", "of as many runs"
GOALS = (
    Goal("8 students of the embedded study, of the time of 8 runs", "sweep", _CLASS, _PER_RUN, 0.65),
    Goal("8 students R50x1 of R152x2, of the time of 8 runs", "sweep", _CLASS, _PER_RUN, 2.7 / 8, on_gpu=_CLASS_ON_GPU),
    Goal("training loop, of a step of 50 ms", "loop", {"kind": "loop"}, "share at 50 ms", 0.02),
    Goal("start to the end of the first step, of a second run (s)", "loop", {"case": "second run"}, "first step", 10.0),
    *(
        Goal(
            f"8 runs by {policy} in compiled PyTorch, times as long as 8 students at once",
            "study",
            {"case": f"embedded, {policy}, 8 students", "form": "PyTorch, compiled"},
            "times as long",
            1 / 0.65,
            True,
        )
        for policy in ("mix", "same/ic")
    ),
    *(
        Goal(f"step of {case}: images/s", "step", {"case": case, "form": "distill_lib"}, "images/s", limit, True)
        for case, limit in (("embedded, labels", 2600), ("embedded, mix", 1770))
    ),
    Goal(_BIG_VISION, "step", _PAPER | {"form": "big_vision", "images": 8}, "times as long", 1.3, True),
    Goal(
        f"{_BIG_VISION}, with 256 images",
        *("step", _PAPER | {"form": "big_vision", "images": 256}, "times as long", 2.0, True, _STEP_ON_GPU),
    ),
    Goal(
        "step of R152x2 to R50x1 in bfloat16: share of the measured peak",
        *("step", _PAPER | {"form": "distill_lib", "dtype": "bfloat16"}, "share of peak", 0.45, True, _STEP_ON_GPU),
    ),
    Goal(
        "decoding and cropping on one core: plain tf.data, times as long as ours",
        *("input", {"cores": 1, "form": "plain"}, "ratio", 1.5, True),
    ),
)  # fmt: skip


def table(results: Path | None = None, benchmark: str | None = None) -> pd.DataFrame:
    """A row a goal, or a row for each goal of one benchmark."""
    import pandas as pd

    place = results or records.find_results()
    return pd.DataFrame([goal.row(place) for goal in GOALS if benchmark in (None, goal.benchmark)])

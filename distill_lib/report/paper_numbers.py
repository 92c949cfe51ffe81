"""The numbers that the paper reports, one a row, and which command repeats each of them here.

References:
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022 (arXiv 2106.05237v2),
    Tables 1 to 5 and the sections that each row names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FILE = Path(__file__).parents[1] / "data" / "paper_tables.csv"
AUTHORS = "Beyer et al. 2022"
_CURVES = {"fixed": "fix/cc", "same": "same/ic", "mix": "mix"}  # series of presets on ImageNet: policy


@dataclass(frozen=True)
class Repeat:
    """What repeats a number here.

    Attributes:
        kind: "train" (a preset), "judge" (a published network on test images), "check" (a data set's card) or "none".
        dataset: the data set; empty for "none".
        name: of the preset or the network.
    """

    kind: str
    dataset: str = ""
    name: str = ""

    @property
    def command(self) -> str:
        """What to type; empty for "none"."""
        return {
            "train": f"nox -s run -- distill -p dataset {self.dataset} -p variant {self.name}",
            "judge": f"distill evaluate {self.name} {self.dataset}",
            "check": f"distill data check {self.dataset}",
            "none": "",
        }[self.kind]


def table() -> pd.DataFrame:
    """All numbers, as text.

    Returns:
        A row a number, with the columns experiment, table, dataset, teacher, student, setting, epochs, resolution,
        temperature, learning_rate, weight_decay, metric, value, source, note and repeat (see `repeat`).
    """
    import pandas as pd

    return pd.read_csv(FILE, dtype=str, keep_default_na=False)


def repeat(text: str) -> Repeat:
    """Reads the column `repeat`: "train DATASET PRESET", "judge NETWORK DATASET", "check DATASET" or "none"."""
    kind, *rest = text.split()
    if kind == "train":
        return Repeat(kind, rest[0], rest[1])
    if kind == "judge":
        return Repeat(kind, rest[1], rest[0])
    return Repeat(kind, *rest)


def imagenet() -> pd.DataFrame:
    """Table 3's fixed teacher, consistent teaching and function matching, and the teacher at 224.

    Returns:
        Columns policy ("teacher" for the teacher itself), name, epochs (NaN for it), test_top1 (share) and source.
    """
    import pandas as pd

    rows = []
    for row in table().to_dict("records"):
        again = repeat(row["repeat"])
        policy = _CURVES.get(again.name.rpartition("_")[0]) if again.kind == "train" else None
        if again == Repeat("judge", "imagenet", "R152x2_T_224"):
            policy = "teacher"
        if policy and row["table"].startswith(("Table 3", "section")):
            epochs = float(row["epochs"] or "nan")
            source = f"{AUTHORS} ({row['source']})"
            share = float(row["value"]) / 100
            about = {"policy": policy, "name": row["setting"], "epochs": epochs}
            rows.append(about | {"test_top1": share, "source": source})
    return pd.DataFrame(rows)

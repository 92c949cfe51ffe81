"""The files of the embedded data set `fashion`, and whether they are the ones on its card."""

from __future__ import annotations

from pathlib import Path

from distill_lib.datasets.cards import SPLITS
from distill_lib.errors import DistillError
from distill_lib.weights import sha256

DATA = Path(__file__).parents[1] / "data"  # a TFDS data folder: DATA/fashion/1.0.0
VERSION = "1.0.0"
SUMS = "SHA256SUMS"
FILES = (
    *(f"{VERSION}/{name}" for name in ("dataset_info.json", "features.json", "label.labels.txt")),
    *(f"{VERSION}/fashion-{split}.array_record-00000-of-00001" for split in SPLITS),
)


def read_sums(folder: Path) -> dict[str, str]:
    """Reads the checksums of a set: relative path -> SHA-256."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def check(data: Path) -> None:
    """Raises DistillError unless every file of data/fashion is the one on the card (8 MB, about 10 ms)."""
    folder = data / "fashion"
    try:
        sums = read_sums(folder)
        problems = [problem for name in FILES if (problem := _problem(folder / name, sums.get(name)))]
    except (OSError, ValueError) as error:
        problems = [f"{SUMS} cannot be read ({error})"]
    if problems:
        raise DistillError(
            f"array_record that does not match its card in {folder}: {'; '.join(problems)}. Install the package again, "
            "or rebuild the folder with `python tests/makers/fashion_build.py build --source DIR --out DIR`."
        )


def _problem(path: Path, digest: str | None) -> str | None:
    if digest is None:
        return f"{path.name} is not listed in {SUMS}"
    if not path.is_file():
        return f"{path.name} is missing"
    if sha256(path) != digest:
        return f"{path.name} ({path.stat().st_size} bytes) differs from its SHA-256"
    return None

"""What to do where a data set is not there: the exact commands, and where files have to lie.

Most of TFDS's builders need TensorFlow to *prepare*, if only to open an archive: then the command for a throw-away
environment is given.
"""

from pathlib import Path

from distill_lib.datasets import fashion, tfds_sets
from distill_lib.datasets.cards import Dataset

MIB, GIB = 2**20, 2**30


def size_text(number: int | None) -> str:
    """A number of bytes in words, such as "331 MiB"."""
    if number is None:
        return "an unknown size"
    if number >= GIB:
        return f"{number / GIB:.1f} GiB"
    return f"{number / MIB:.0f} MiB" if number >= MIB else f"{number / 1024:.0f} KiB" if number else "nothing"


def remedy(dataset: Dataset, damaged: str = "", *, register_checksums: bool = False) -> str:
    """How to get a data set, in one line with the exact command; `damaged` is a folder that is in the way."""
    if dataset.origin == "embedded":
        return "Install this package again: the files are part of it."
    if dataset.origin == "package":
        return "Install the packages: `pip install scikit-image scikit-learn`."
    preparing = command(dataset, register_checksums=register_checksums)
    if dataset.origin == "originals":
        return (
            f"Debian and Ubuntu bring the original files: `{fashion.DEBIAN}`; elsewhere, with TensorFlow: `{preparing}`"
        )
    first = f"Delete {damaged}, or set TFDS_DATA_DIR to another place, and prepare it again. " if damaged else ""
    if not needs_tensorflow(dataset.builder):
        return f"{first}Prepare it: `distill data prepare {dataset.name}`"
    return (
        f"{first}Preparing needs TensorFlow, once, in a throw-away environment (reading does not): `{preparing}`; set "
        "TFDS_DATA_DIR first if the data shall lie elsewhere."
    )


def command(dataset: Dataset, *, register_checksums: bool = False) -> str:
    """The shell command that makes a throw-away environment with TensorFlow and prepares a set of TFDS in it."""
    # Not `tfds build`: TFDS 4.9.10's command line does not start without Apache Beam.
    packages = ("tensorflow", "tensorflow-datasets", "array_record", "importlib_resources", *dataset.packages)
    accept = ", download_config=tfds.download.DownloadConfig(register_checksums=True)" if register_checksums else ""
    return (
        f"python -m venv tfds-env && tfds-env/bin/pip install {' '.join(packages)} && tfds-env/bin/python -c "
        f"\"import tensorflow_datasets as tfds; tfds.builder('{dataset.builder}')"
        f".download_and_prepare(file_format='array_record'{accept})\""
    )


def needs_tensorflow(builder: str) -> bool:
    """Whether TensorFlow is needed to prepare a set: TFDS opens archives with it; a user's own builder need not."""
    import tensorflow_datasets as tfds

    try:
        code: type = tfds.builder_cls(builder.partition("/")[0])
        return code.__module__.startswith("tensorflow_datasets.")
    except tfds.core.DatasetNotFoundError:
        return True


def manual_folder() -> Path:
    """Where TFDS looks for files that nobody can fetch but the user."""
    return tfds_sets.data_folder() / "downloads" / "manual"


def manual_hints(dataset: Dataset) -> tuple[str, ...]:
    """Of each such file: its size, and whether it lies where TFDS looks for it."""

    def state(path: Path, size: int) -> str:
        if not path.is_file():
            return "is missing"
        return "is there" if path.stat().st_size == size else f"has {size_text(path.stat().st_size)} instead"

    folder = manual_folder()
    return tuple(
        f"{file} ({size_text(size)}): {state(folder / file, size)}, in {folder}"
        for file, size in dataset.manual_files.items()
    )


def card_text(dataset: Dataset) -> str:
    """The card of a data set in Markdown: size, splits, licence, citation, preparation and traps."""
    packaged = dataset.origin == "package"
    quote = "" if packaged or dataset.origin == "originals" else "`"  # around an expression of TFDS, not around words
    splits = [f"{split} {dataset.counts[split]:,} ({quote}{part}{quote})" for split, part in dataset.splits.items()]
    colours = "grey" if dataset.channels == 1 else "colour"
    shape = f"{dataset.size} x {dataset.size} pixels" if dataset.size else "of various sizes"
    disk = f"{size_text(dataset.disk_bytes)} on disk" if dataset.disk_bytes else "TFDS does not say how much on disk"
    files = [f"`{file}` ({size_text(size)})" for file, size in dataset.manual_files.items()]
    where = f"images of {dataset.builder}" if packaged else f"TFDS `{dataset.builder}`"
    lines = [
        f"- **What**: {where}; {dataset.num_classes:,} classes, {colours} images, {shape}.",
        f"- **Splits**: {'; '.join(splits)}.",
        f"- **Size**: {size_text(dataset.download_bytes)} to download, {'part of the packages' if packaged else disk}.",
        *([f"- **By hand**, into `downloads/manual` of TFDS's data folder: {' and '.join(files)}."] if files else []),
        f"- **Licence**: {dataset.licence}. **Citation**: {dataset.citation}.",
        *[f"- **Trap**: {trap}" for trap in dataset.traps],
    ]
    if dataset.origin == "tfds":
        lines += ["- **Prepare**:", "", "  ```sh", f"  {command(dataset)}", "  ```"]
    return "\n".join(lines)

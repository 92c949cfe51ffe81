"""The data check, and preparing: whether a set is there, where it was looked for, and what to do if it is not."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from distill_lib.datasets import fashion, image_folder, tfds_sets
from distill_lib.datasets.cards import Dataset
from distill_lib.datasets.source import get
from distill_lib.errors import DistillError

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Status:
    """Whether a data set is there."""

    name: str
    state: str  #: "present", "absent", or "incomplete" (files are missing or are not what the card says)
    place: str  #: where it was looked for
    card: Dataset | None  #: what it should be; None for a folder of pictures that is not as it must be
    problem: str = ""  #: what is wrong; empty if it is present
    remedy: str = ""  #: what to do, with the exact command; empty if it is present
    hints: tuple[str, ...] = ()  #: what is known to go wrong or to mislead

    @property
    def present(self) -> bool:
        """Whether the set can be read."""
        return self.state == "present"

    def lines(self) -> tuple[str, ...]:
        """What was found; if the set is not there, a second line with the remedy."""
        known = self.card and self.card.examples
        images = f"{known:,} images" if known else "number of images unknown until prepared"
        if self.present:
            return (f"{self.name}: present, {images}, in {self.place}.",)
        disk, download = (self.card.disk_bytes, self.card.download_bytes) if self.card else (None, 0)
        expected = f"{images}, {size_text(disk)} on disk, {size_text(download)} to download"
        where = "" if self.place in self.problem else f" Looked in {self.place}."
        return (f"{self.name}: {self.state}: {self.problem}.{where} Expected: {expected}.", f"  {self.remedy}")


def status(name: str) -> Status:
    """Looks for a data set, and compares its files with its card; DistillError for an unknown name."""
    name = str(name)  # a notebook may be given a number
    try:
        dataset = get(name)
    except DistillError as error:
        if not name.startswith(image_folder.FOLDER):
            raise
        place = image_folder.path_of(name)
        state = "incomplete" if place.is_dir() else "absent"
        advice = "A folder of pictures holds a folder for each class, with the pictures in it."
        return Status(name, state, str(place), None, problem=str(error).rstrip("."), remedy=advice)
    where, problem, state = _looked_for(dataset)
    if not problem:
        return Status(name, "present", where, dataset, hints=dataset.traps)
    advice = dataset.remedy or tfds_sets.remedy(dataset, where if state == "incomplete" else "")
    hints, folder = [], manual_folder()
    for file, size in dataset.manual_files.items():
        held = (folder / file).stat().st_size if (folder / file).is_file() else None
        there = {None: "is missing", size: "is there"}.get(held) or f"has {size_text(held)} instead"
        hints.append(f"{file} ({size_text(size)}): {there}, in {folder}")
    return Status(name, state, where, dataset, problem, advice, (*hints, *dataset.traps))


def check(name: str, *, mock: bool = False) -> None:
    """Prints in a line or two whether a data set is there, and how to prepare it, or that mock data will do."""
    current = status(name)
    unneeded = f"{name}: {current.state}, and not needed: mock data (made-up images) are used, and the records say so."
    print(unneeded if mock else "\n".join(current.lines()))


def prepare(name: str, *, register_checksums: bool = False) -> Status:
    """Prepares a set of TFDS as array_record, with other downloads than TFDS knows if asked; or raises DistillError."""
    current = status(name)
    if current.present:
        return current
    dataset = current.card
    if dataset is None or dataset.origin != "tfds":
        raise DistillError(f"{name} is not prepared but read as it is: {current.problem}. {current.remedy}")
    if current.state == "incomplete":
        raise DistillError(f"{current.problem}. {current.remedy}")
    if missing := [file for file in dataset.manual_files if not (manual_folder() / file).is_file()]:
        raise DistillError(f"{name} needs {' and '.join(missing)} in {manual_folder()}. {dataset.traps[0]}")
    if tfds_sets.needs_tensorflow(dataset.builder) and importlib.util.find_spec("tensorflow") is None:
        raise DistillError(
            f"{name} cannot be prepared here. {tfds_sets.remedy(dataset, register_checksums=register_checksums)}"
        )
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(register_checksums=register_checksums)
    builder = tfds.builder(dataset.builder, data_dir=tfds_sets.data_folder())
    tfds.enable_progress_bar()  # building the embedded set in the same process turns it off
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except ImportError as error:
        raise DistillError(f"{dataset.name}: {error.name} is not installed. {tfds_sets.remedy(dataset)}") from error
    except Exception as error:  # TFDS and its builders raise whatever a download or an archive stumbles over
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if type(error).__name__ == "NonMatchingChecksumError":
            reason = (
                f"a download is not the one that TFDS knows ({reason}): delete it from {manual_folder().parent} and "
                "prepare again; if it ends so again, add --register-checksums to accept the file as it is now."
            )
        raise DistillError(f"TFDS could not prepare {dataset.name}: {reason}") from error
    return status(name)


def _looked_for(dataset: Dataset) -> tuple[str, str, str]:
    """Where a set was looked for, what is wrong (empty if it is present), and its state if anything is."""
    if dataset.origin == "folder":
        return dataset.builder, "", ""
    if dataset.origin == "tfds":
        info = tfds_sets.read_info(dataset.builder)
        problem = tfds_sets.files_problem(info) or tfds_sets.content_problem(dataset, info)
        prepared = (Path(info.data_dir) / "dataset_info.json").exists()
        return str(info.data_dir), problem, "incomplete" if prepared else "absent"
    if dataset.origin == "package":
        missing = [package for package in ("skimage", "sklearn") if importlib.util.find_spec(package) is None]
        problem = f"{' and '.join(missing)} cannot be imported" if missing else ""
        return f"the packages {dataset.builder}", problem, "absent"
    embedded = dataset.origin == "embedded"
    place, state = (fashion.DATA / "fashion", "incomplete") if embedded else (fashion.folder(), "absent")
    try:
        fashion.check(fashion.DATA)
        if not embedded:
            fashion.read_originals()
    except DistillError as error:
        return str(place), str(error).removesuffix(fashion.REMEDY).rstrip(". "), state
    return str(place), "", state


def size_text(number: int | None) -> str:
    """A number of bytes in words, such as "331 MiB"."""
    if number is None:
        return "an unknown size"
    if number >= GIB:
        return f"{number / GIB:.1f} GiB"
    return f"{number / MIB:.0f} MiB" if number >= MIB else f"{number / 1024:.0f} KiB" if number else "nothing"


def manual_folder() -> Path:
    """Where TFDS looks for files that nobody can fetch but the user."""
    return tfds_sets.data_folder() / "downloads" / "manual"


def card_text(dataset: Dataset) -> str:
    """The card of a data set in Markdown: size, splits, licence, citation, preparation and traps."""
    packaged = dataset.origin == "package"
    quote = "" if packaged or dataset.origin == "originals" else "`"  # around an expression of TFDS, not around words
    splits = [f"{split} {dataset.counts[split]:,} ({quote}{part}{quote})" for split, part in dataset.splits.items()]
    colours = "grey" if dataset.channels == 1 else "colour"
    shape = f"{dataset.size} x {dataset.size} pixels" if dataset.size else "of various sizes"
    disk = f"{size_text(dataset.disk_bytes)} on disk" if dataset.disk_bytes else "TFDS does not say how much on disk"
    files = " and ".join(f"`{file}` ({size_text(size)})" for file, size in dataset.manual_files.items())
    where = f"images of {dataset.builder}" if packaged else f"TFDS `{dataset.builder}`"
    lines = [
        f"- **What**: {where}; {dataset.num_classes:,} classes, {colours} images, {shape}.",
        f"- **Splits**: {'; '.join(splits)}.",
        f"- **Size**: {size_text(dataset.download_bytes)} to download, {'part of the packages' if packaged else disk}.",
        *([f"- **By hand**, into `downloads/manual` of TFDS's data folder: {files}."] if files else []),
        f"- **Licence**: {dataset.licence}. **Citation**: {dataset.citation}.",
        *[f"- **Trap**: {trap}" for trap in dataset.traps],
    ]
    if dataset.origin == "tfds":
        lines += ["- **Prepare**:", "", "  ```sh", f"  {tfds_sets.command(dataset)}", "  ```"]
    return "\n".join(lines)

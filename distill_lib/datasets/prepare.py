"""The data check, and preparing: whether a set is there, where it was looked for, and what to do if it is not.

distill data check               whether all sets are there, and how to prepare them
distill data prepare flowers     download and prepare a set
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from distill_lib.datasets import fashion, image_folder, tfds_sets
from distill_lib.datasets.cards import Dataset
from distill_lib.datasets.instructions import manual_folder, manual_hints, needs_tensorflow, remedy, size_text
from distill_lib.datasets.source import get
from distill_lib.errors import DistillError


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
    advice = remedy(dataset, where if state == "incomplete" else "")
    return Status(name, state, where, dataset, problem, advice, manual_hints(dataset) + dataset.traps)


def check(name: str, *, mock: bool = False) -> None:
    """Prints in a line or two whether a data set is there, and how to prepare it, or that mock data will do."""
    current = status(name)
    if mock:
        print(f"{name}: {current.state}, and not needed: mock data (made-up images) are used, and the records say so.")
    else:
        print("\n".join(current.lines()))


def prepare(name: str, *, register_checksums: bool = False) -> Status:
    """Prepares a set of TFDS as array_record, and returns what is there then; DistillError where that cannot be.

    With `register_checksums` downloads are accepted that are not the ones TFDS knows.
    """
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
    if needs_tensorflow(dataset.builder) and importlib.util.find_spec("tensorflow") is None:
        raise DistillError(f"{name} cannot be prepared here. {remedy(dataset, register_checksums=register_checksums)}")
    _run_tfds(dataset, register_checksums)
    return status(name)


def _run_tfds(dataset: Dataset, register_checksums: bool) -> None:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(register_checksums=register_checksums)
    builder = tfds.builder(dataset.builder, data_dir=tfds_sets.data_folder())
    tfds.enable_progress_bar()  # building the embedded set in the same process turns it off
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except ImportError as error:
        raise DistillError(f"{dataset.name}: {error.name} is not installed. {remedy(dataset)}") from error
    except Exception as error:  # TFDS and its builders raise whatever a download or an archive stumbles over
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if type(error).__name__ == "NonMatchingChecksumError":
            reason = (
                f"a download is not the one that TFDS knows ({reason}): delete it from {manual_folder().parent} and "
                "prepare again; if it ends so again, add --register-checksums to accept the file as it is now."
            )
        raise DistillError(f"TFDS could not prepare {dataset.name}: {reason}") from error


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

"""A user's own pictures: a folder with a sub-folder for each class, and splits that stay as they are when it grows.

    /path/roses/1.jpg, /path/tulips/...                      split 80 / 10 / 10 by a hash of each picture's path
    /path/train/roses/1.jpg, /path/val/..., /path/test/...   split as given; `validation` is as good a name as `val`

Beside train, the split that is absent is a tenth of it by the same hash, which orders pictures, too. Only where
pictures are so few that a split or a class would have none, those of each class take turns.
"""

import hashlib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_lib.datasets.cards import SPLITS, Dataset
from distill_lib.datasets.decode import ImageError
from distill_lib.errors import DistillError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
FILE_BYTES = 2**28  # of the largest file that is read
FOLDER = "folder:"  # before the path, in the name of such a data set


class Picture(NamedTuple):
    """One picture: its path inside the folder, with slashes, and its class."""

    path: str
    label: int


class PictureRows(Sequence[dict[str, Any]]):
    """Rows {"image": bytes or ImageError, "label": int, "file_name": str} of a split; DistillError where one goes."""

    def __init__(self, card: Dataset, split: str) -> None:
        self._root, self._pictures = Path(card.builder), card.pictures[split]
        self._resolved = os.path.realpath(self._root)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: Any) -> Any:
        path, label = self._pictures[index]
        return {"image": self._read(self._root / path), "label": label, "file_name": path}

    def _read(self, path: Path) -> bytes | ImageError:
        """The bytes of a file, or why there are none: a link may lead anywhere, and a pipe never ends."""
        try:
            if not Path(os.path.realpath(path)).is_relative_to(self._resolved):
                return ImageError("a link out of the folder; `cp -rLl` makes a folder of the files themselves")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return ImageError("not a regular file")
            if status.st_size > FILE_BYTES:
                return ImageError(f"{status.st_size:,} bytes are more than {FILE_BYTES:,}")
            return path.read_bytes()
        except OSError as error:
            if isinstance(error, PermissionError) or path.is_symlink():
                return ImageError(f"{error.strerror}")
            raise DistillError(f"{path} cannot be read ({error.strerror}): was it moved?") from error


def path_of(name: str) -> Path:
    """The absolute path in "folder:/path", ~ resolved."""
    return Path(os.path.abspath(os.path.expanduser(name.removeprefix(FOLDER))))


def absolute(name: str) -> str:
    """A data set's name; that of a folder with its absolute path."""
    return f"{FOLDER}{path_of(name)}" if name.startswith(FOLDER) else name


def scan(root: Path) -> Dataset:
    """The card of a folder, with its pictures; DistillError where it is not as it must be, or cannot be read."""
    if not root.is_dir():
        raise DistillError(f"there is no folder {root}: give `folder:` and the path of a folder with a folder a class.")
    try:
        parts = _parts(root)
        classes = _class_names(root, parts.get("train", root))
        scanned = {split: _pictures(root, folder, classes) for split, folder in (parts or {"train": root}).items()}
    except OSError as error:
        raise DistillError(
            f"{error.filename} cannot be read ({error.strerror}): its pictures would be missing unseen; make it "
            "readable, or move it away."
        ) from error
    given = {split: pictures for split, (pictures, _) in scanned.items()}
    absent = [split for split in SPLITS if split not in given]
    pictures = given | _dealt(given["train"], absent, in_turns=False)
    few = not all(pictures.values()) or len({picture.label for picture in pictures["train"]}) < len(classes)
    if few:
        pictures = given | _dealt(given["train"], absent, in_turns=True)
    if empty := [split for split in SPLITS if not pictures[split]]:
        raise DistillError(
            f"the {empty[0]} split of {root} is empty: add pictures (at least 3 of a class), or make folders train, "
            "val and test."
        )
    skipped, left_out = sum(others for _, others in scanned.values()), "hidden, no pictures, or in no class folder"
    return Dataset(
        name=f"{FOLDER}{root}",
        builder=str(root),
        splits=dict.fromkeys(SPLITS, _rule(parts, absent, few)),
        counts={split: len(pictures[split]) for split in SPLITS},
        num_classes=len(classes),
        licence="yours to know",
        citation="your own pictures",
        class_names=classes,
        origin="folder",
        download_bytes=0,
        traps=(f"{skipped} files are not counted: they are {left_out}, or links to folders.",) if skipped else (),
        pictures={split: tuple(pictures[split]) for split in SPLITS},
    )


def fingerprint(card: Dataset) -> str:
    """Eight hexadecimal digits that change when a picture is added, removed, renamed or changes its number of bytes."""
    pictures = sorted(picture.path for split in card.pictures.values() for picture in split)
    files = (Path(card.builder, path) for path in pictures)
    sizes = [(file.stat() if file.exists() else file.lstat()).st_size for file in files]  # a link may lead to nothing
    described = "\n".join(f"{path} {size}" for path, size in zip(pictures, sizes, strict=True))
    return hashlib.sha256(described.encode(errors="surrogateescape")).hexdigest()[:8]


def _parts(root: Path) -> dict[str, Path]:
    """The folders train, validation and test, where train and one of the others are there; else nothing."""
    named = {"train": "train", "validation": "validation" if (root / "validation").is_dir() else "val", "test": "test"}
    parts = {split: root / name for split, name in named.items() if (root / name).is_dir()}
    return parts if "train" in parts and len(parts) > 1 else {}


def _rule(parts: dict[str, Path], absent: list[str], few: bool) -> str:
    turns = "pictures of each class in turns, since they are few"
    if not parts:
        return turns if few else "80 / 10 / 10 % by a hash of each path"
    drawn = turns if few else "10 % of train by a hash of each path"
    given = f"as given by {' and '.join(f'{path.name}/' for path in parts.values())}"
    return given + "".join(f"; {split}: {drawn}" for split in absent)


def _dealt(pictures: list[Picture], absent: list[str], *, in_turns: bool) -> dict[str, list[Picture]]:
    """Pictures for training and for each split that is not given: a tenth each by hash, or in turns within a class."""
    places = ["train", *reversed(absent), "train", "train"] if in_turns else ["train"] * (10 - len(absent)) + absent
    dealt: dict[str, list[Picture]] = {split: [] for split in places}
    turns = Counter[int]()
    for picture in pictures:
        place = turns[picture.label] % len(places) if in_turns else _draw(picture)[0]
        dealt[places[place]].append(picture)
        turns[picture.label] += 1
    return dealt


def _draw(picture: Picture) -> tuple[int, bytes]:
    """A picture's tenth, and its place in the order, of other bits: within a split, too, the order tells nothing."""
    path = _composed(picture.path)
    digest = hashlib.sha256(path.encode(errors="surrogateescape")).digest()  # names need not be Unicode
    return int.from_bytes(digest[:8], "big") % 100 // 10, digest[8:]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _visible_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _class_names(root: Path, folder: Path) -> tuple[str, ...]:
    names = tuple(map(_composed, _visible_folders(folder)))
    if len(names) < 2:
        raise DistillError(
            f"{folder} has {len(names)} class folders, and at least 2 are needed: put the pictures of each class into "
            f"a folder of its own in {root}, or in {root / 'train'}."
        )
    return names


def _pictures(root: Path, folder: Path, classes: tuple[str, ...]) -> tuple[list[Picture], int]:
    """The pictures below a folder of class folders, in their order, and how many files are not counted."""
    pictures, files = list[Picture](), sum(entry.is_file() for entry in os.scandir(folder))
    trains = folder in (root, root / "train")
    for name in _visible_folders(folder):
        if _composed(name) not in classes:
            raise DistillError(f"{folder / name} is a class that has no training pictures: add or remove it.")
        entries = list(_files(str(folder / name)))
        named = [entry for entry in entries if entry.name.lower().endswith(EXTENSIONS) and entry.name[0] != "."]
        chosen = [Path(entry).relative_to(root).as_posix() for entry in named if not os.path.isdir(entry)]
        if trains and not chosen:
            raise DistillError(
                f"class {name!r} has no pictures in {folder / name}: add some (they end in {', '.join(EXTENSIONS)}), "
                "or remove the folder."
            )
        pictures += [Picture(path, classes.index(_composed(name))) for path in chosen]
        files += len(entries)
    return sorted(pictures, key=lambda picture: _draw(picture)[1]), files - len(pictures)


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    """All files below a folder but those in hidden ones, and links to folders, which may lead in circles."""
    for entry in list(os.scandir(folder)):
        if not entry.is_dir(follow_symlinks=False):
            yield entry
        elif not entry.name.startswith("."):
            yield from _files(entry.path)

"""The embedded data set `fashion`: chosen from the original Fashion-MNIST files, written, and rebuilt byte for byte.

From a shell, with the four original files in a folder:

    python tests/makers/fashion_build.py build --source DIR --out DIR
    python tests/makers/fashion_build.py verify --source DIR
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from distill_lib.datasets.cards import CARDS, SPLITS
from distill_lib.datasets.fashion import DATA, SUMS, VERSION, Originals, check, choose, read_originals, read_sums
from distill_lib.errors import DistillError, command_line
from distill_lib.weights import sha256

# The bytes (never the pixels) of the files depend on these. On Linux Pillow deflates with the system's zlib: 1.2.11,
# 1.2.13 and 1.3.1 gave the same bytes, zlib-ng in its place gave others.
BUILT_WITH = {"pillow": "13.0.0", "zlib": "1.2.13", "array-record": "0.8.6", "tensorflow-datasets": "4.9.10"}
DESCRIPTION = (
    "1,020 training, 1,020 validation and 10,000 test images of Fashion-MNIST, 28x28 grey: the shape of Flowers102. "
    "`index` is the row in the original training file (train, validation) or test file (test)."
)
CITATION = """@article{xiao2017fashion,
  title = {Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  author = {Han Xiao and Kashif Rasul and Roland Vollgraf},
  journal = {arXiv:1708.07747},
  year = {2017}
}"""


class Part(NamedTuple):
    """One split: images uint8 (n, 28, 28), labels (n,) in 0..9, rows (n,) in the original file."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


def parts(originals: Originals) -> dict[str, Part]:
    """Cuts the original files into "train", "validation", "teacher" (not shipped) and "test"."""
    images, labels = originals.train_images, originals.train_labels
    chosen = {split: Part(images[rows], labels[rows], rows) for split, rows in choose(labels).items()}
    test_rows = np.arange(len(originals.test_labels))
    return chosen | {"test": Part(originals.test_images, originals.test_labels, test_rows)}


def encode_png(image: np.ndarray) -> bytes:
    """Encodes one grey image, uint8 (28, 28), in about 510 bytes of PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    # Of Pillow's levels and strategies this pair gave the fewest bytes on these images (1 is zlib's Z_FILTERED).
    Image.fromarray(image).save(buffer, format="PNG", compress_level=9, compress_type=1)
    return buffer.getvalue()


def _examples(part: Part) -> Iterator[tuple[int, dict[str, Any]]]:
    for position, (image, label, row) in enumerate(zip(*part, strict=True)):
        # As a file object the image is stored as it is; an array would be encoded by TensorFlow.
        yield position, {"image": io.BytesIO(encode_png(image)), "label": int(label), "index": int(row)}


def _serialize(serializer: Any, example: dict[str, Any]) -> bytes:
    # TFDS's own version leaves the order of the features to chance: other bytes in every process.
    return serializer.get_tf_example(example).SerializeToString(deterministic=True)


def _builder(splits: Mapping[str, Part], out: Path) -> Any:
    import tensorflow_datasets as tfds

    class Fashion(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        __module__ = "distill_lib.fashion"  # is written into the files, also when this runs as __main__
        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1), dtype=np.uint8, encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(CARDS["fashion"].class_names)),
                "index": tfds.features.Scalar(dtype=np.int64),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=DESCRIPTION,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                homepage="https://github.com/zalandoresearch/fashion-mnist",
                citation=CITATION,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {split: _examples(part) for split, part in splits.items()}

        def _generate_examples(self, **kwargs: Any) -> Any:
            raise NotImplementedError("the generators are made in _split_generators")

    return Fashion(data_dir=str(out), file_format="array_record")


def write(splits: Mapping[str, Part], out: Path) -> Path:
    """Writes splits as a prepared TFDS folder with its checksums; needs no TensorFlow.

    Args:
        splits: the splits by name, in the order in which they are recorded.
        out: a TFDS data folder; the set lies in out/fashion/1.0.0 and its checksums in out/fashion/SHA256SUMS.

    Returns:
        The folder out/fashion.

    Raises:
        DistillError: the set is already there.
    """
    import unittest.mock

    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    folder = out / "fashion"
    if (folder / VERSION).exists():
        raise DistillError(f"{folder / VERSION} exists: delete it, or choose another folder with --out.")
    tfds.disable_progress_bar()
    deterministic = unittest.mock.patch.object(ExampleSerializer, "serialize_example", _serialize)
    with deterministic, contextlib.redirect_stdout(io.StringIO()):  # TFDS prints of a download that there is not
        _builder(splits, out).download_and_prepare()
    files = sorted(path for path in (folder / VERSION).iterdir() if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_bytes("".join(lines).encode())
    return folder


def build(source: Path | None, out: Path) -> Path:
    """Builds the embedded set from the original files (see `fashion.read_originals`) under `out`."""
    everything = parts(read_originals(source))
    return write({split: everything[split] for split in SPLITS}, out)


def built_with() -> dict[str, str]:
    """The versions at hand of everything in BUILT_WITH."""
    from PIL import features

    packages = {name: importlib.metadata.version(name) for name in BUILT_WITH if name != "zlib"}
    return packages | {"zlib": str(features.version_codec("zlib"))}


def _contents(data: Path) -> dict[str, list[dict[str, Any]]]:
    import tensorflow_datasets as tfds
    from PIL import Image

    builder = tfds.builder_from_directory(data / "fashion" / VERSION)
    contents = {}
    for split in SPLITS:
        rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        contents[split] = [row | {"image": np.asarray(Image.open(io.BytesIO(row["image"])))} for row in rows]
    return contents


def same_contents(first: Path, second: Path) -> bool:
    """Whether two data folders hold the same pixels, labels and row numbers in the same order."""
    left, right = _contents(first), _contents(second)
    return all(
        len(left[split]) == len(right[split])
        and all(np.array_equal(a[key], b[key]) for a, b in zip(left[split], right[split], strict=True) for key in a)
        for split in left
    )


def verify(source: Path | None, data: Path = DATA) -> str:
    """Rebuilds the set in a temporary folder and compares it with `data`, byte for byte.

    Returns:
        One line that says what was compared.

    Raises:
        DistillError: bytes differ; the message says whether the pixels do.
    """
    check(data)
    sums = read_sums(data / "fashion" / SUMS)
    with tempfile.TemporaryDirectory() as temporary:
        rebuilt = read_sums(build(source, Path(temporary)) / SUMS)
        if rebuilt == sums:
            return f"{data / 'fashion'}: {len(sums)} files equal the rebuilt ones, byte for byte."
        different = sorted(name for name, _ in sums.items() ^ rebuilt.items())
        if not same_contents(data, Path(temporary)):
            raise DistillError(f"the rebuilt set holds other images, labels or rows than {data / 'fashion'}.")
    raise DistillError(
        f"all pixels, labels and rows are equal, but not the bytes of {', '.join(dict.fromkeys(different))}: "
        f"the card's were made with {BUILT_WITH}, these with {built_with()}; install those versions."
    )


@command_line
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python tests/makers/fashion_build.py", description="Rebuild the embedded data set."
    )
    parser.add_argument("command", choices=("build", "verify"))
    parser.add_argument("--source", type=Path, help="folder of the four original IDX files (.gz or not)")
    parser.add_argument("--out", type=Path, help="TFDS data folder to build in (build only)")
    options = parser.parse_args(arguments)
    if options.command == "build" and options.out is None:
        parser.error("build needs --out DIR")
    print(verify(options.source) if options.command == "verify" else build(options.source, options.out))


if __name__ == "__main__":
    sys.exit(main())

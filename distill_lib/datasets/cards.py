"""Cards of the data sets that have a name here: what they are, and the traps that others fell into.

References:
    Splits: Beyer et al., arXiv 2106.05237, Table 5. Sizes: TFDS 4.9.10 (checksums of its downloads) and its catalogue
    (prepared sets). Traps: TFDS's builders, and the issues of github.com/tensorflow/datasets that are named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distill_lib.datasets import package_images

SPLITS = ("train", "validation", "test")
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
NUM_CLASSES = len(CLASS_NAMES)

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Dataset:
    """One data set."""

    name: str  #: the name that recipes use
    builder: str  #: TFDS id; the path of a folder of pictures
    splits: dict[str, str]  #: TFDS split expression, or description, of "train", "validation", "test", or some of them
    counts: dict[str, int]  #: number of images of each split; empty where only the prepared set tells
    num_classes: int
    channels: int  #: 1 (grey) or 3 (RGB)
    size: int | None  #: side in pixels where all images are squares of one size
    licence: str  #: terms of use, in a few words
    citation: str
    class_names: tuple[str, ...] = ()  #: in the order of the labels, if the card has them; see `datasets.class_names`
    origin: str = "tfds"  #: or "embedded" (here), "package", "originals" (files of Fashion-MNIST), "folder"
    keys: tuple[str, str] = ("image", "label")  #: names of image and label in an example
    multilabel: bool = False  #: whether an example has any number of labels, and not just one
    left_out: dict[str, int] = field(default_factory=dict)  #: images that TFDS may leave out, as they cannot be decoded
    download_bytes: int | None = None  #: what preparing fetches; None if unknown
    disk_bytes: int | None = None  #: size of the prepared set; None if unknown
    manual_files: dict[str, int] = field(default_factory=dict)  #: name and bytes of files that only the user can fetch
    packages: tuple[str, ...] = ()  #: what preparing needs beside TensorFlow and TFDS
    traps: tuple[str, ...] = ()  #: what is known to go wrong or to mislead, a sentence each

    @property
    def examples(self) -> int | None:
        """Number of images of all splits, if known."""
        return sum(self.counts.values()) or None

    def mismatch(self, split: str, count: int) -> str:
        """What is wrong with a split of so many images; empty if nothing is."""
        expected = self.counts.get(split, count)
        fits = expected - self.left_out.get(split, 0) <= count <= expected
        return "" if fits else f"{count:,} instead of {expected:,} {split} images"


def _fashion(name: str, builder: str, train: int, splits: tuple[str, ...], **rest: Any) -> Dataset:
    return Dataset(
        name=name,
        builder=builder,
        splits=dict(zip(SPLITS, splits, strict=True)),
        counts={"train": train, "validation": 1_020, "test": 10_000},
        num_classes=NUM_CLASSES,
        channels=1,
        size=28,
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf: Fashion-MNIST (arXiv 1708.07747)",
        class_names=CLASS_NAMES,
        **rest,
    )


def _photos(name: str, builder: str, splits: dict[str, tuple[str, int]], **rest: Any) -> Dataset:
    expressions = {split: expression for split, (expression, _) in splits.items()}
    counts = {split: count for split, (_, count) in splits.items()}
    return Dataset(name, builder, expressions, counts, channels=3, size=None, **rest)


def _borrowed(name: str, package: str, count: int, **rest: Any) -> Dataset:
    return Dataset(
        name=name,
        builder=package,
        splits={"train": "all images"},
        counts={"train": count},
        origin="package",
        download_bytes=0,
        traps=("For transfer alone: its images are shown to students of other sets (`transfer_set`).",),
        **rest,
    )


_VGG = (
    "The host (VGG, Oxford) has changed its files before (TFDS issues 1977, 1978, 4012): where preparing ends with a "
    "wrong checksum, delete the file from TFDS's downloads folder and prepare again; if it ends so again, "
    "`distill data prepare {name} --register-checksums` accepts the file as it is now, or gives the "
    "command that does."
)
_IMAGENET_TERMS = "non-commercial research and education, under ImageNet's terms of access"
_VALIDATION_TAR = {"ILSVRC2012_img_val.tar": 6_744_924_160}
_WORDNET = "Classes are named by their WordNet ids, such as n01440764."

CARDS = (
    _fashion("fashion", "fashion", 1_020, SPLITS, origin="embedded", download_bytes=0, disk_bytes=7_867_063),
    _fashion(
        "fashion_teacher",
        "fashion_mnist",
        57_960,
        ("the training file's images that are not in fashion", "as fashion", "as fashion"),
        origin="originals",
        download_bytes=30_878_645,
        disk_bytes=30_878_645,
        traps=(
            "Its training images are the teacher's alone: a student that sees them has seen the teacher's lessons.",
        ),
    ),
    _fashion(
        "fashion_mnist",
        "fashion_mnist",
        58_980,
        ("the training file but fashion's validation images", "as fashion", "as fashion"),
        origin="originals",
        download_bytes=30_878_645,
        disk_bytes=30_878_645,
        traps=("The embedded teacher has learnt from 57,960 of its 58,980 training images.",),
    ),
    _borrowed(
        "digits",
        "scikit-learn",
        package_images.DIGITS,
        num_classes=10,
        channels=1,
        size=8,
        licence="CC BY 4.0",
        citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits (UCI Machine Learning Repository, 1998)",
        class_names=tuple("0123456789"),
    ),
    _borrowed(
        "patches",
        "scikit-image and scikit-learn",
        package_images.PATCHES,
        num_classes=len(package_images.FILES),
        channels=3,
        size=package_images.PATCH_SIDE,
        licence="see the packages' lists of their images' sources",
        citation="sample photographs of scikit-image and scikit-learn",
        class_names=tuple(package_images.FILES),
    ),
    _photos(
        "flowers",
        "oxford_flowers102",
        {"train": ("train", 1_020), "validation": ("validation", 1_020), "test": ("test", 6_149)},
        num_classes=102,
        licence="no licence stated; used for research",
        citation="Nilsback, Zisserman: Automated Flower Classification over a Large Number of Classes (ICVGIP 2008)",
        download_bytes=344_862_509 + 502 + 14_989,
        disk_bytes=round(331.34 * MIB),
        packages=("scipy",),
        traps=(
            "There are six times as many test as training images: that is right, not swapped (TFDS issue 3022).",
            _VGG.format(name="flowers"),
        ),
    ),
    _photos(
        "pets",
        "oxford_iiit_pet",
        {"train": ("train[:90%]", 3_312), "validation": ("train[90%:]", 368), "test": ("test", 3_669)},
        num_classes=37,
        licence="CC BY-SA 4.0",
        citation="Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs (CVPR 2012)",
        download_bytes=791_918_971 + 19_173_078,
        disk_bytes=round(773.68 * MIB),
        traps=(
            "Twelve of its .jpg files are damaged, PNG or GIF; TFDS encodes them anew from version 4.0.0 on.",
            _VGG.format(name="pets"),
        ),
    ),
    _photos(
        "food",
        "food101",
        {"train": ("train[:90%]", 68_175), "validation": ("train[90%:]", 7_575), "test": ("validation", 25_250)},
        num_classes=101,
        licence="images of Foodspotting; scientific fair use",
        citation="Bossard, Guillaumin, Van Gool: Food-101 (ECCV 2014)",
        download_bytes=4_996_278_331,
        traps=(
            "Training labels are noisy on purpose, those of the test images were checked.",
            "TFDS calls the test images `validation`.",
        ),
    ),
    _photos(
        "sun397",
        "sun397/tfds",
        {"train": ("train", 76_128), "validation": ("validation", 10_875), "test": ("test", 21_750)},
        num_classes=397,
        licence="no licence stated; used for research",
        citation="Xiao, Hays, Ehinger, Oliva, Torralba: SUN Database (CVPR 2010)",
        download_bytes=39_077_296_924 + 18_293_705,
        packages=("opencv-python-headless",),
        left_out={"train": 1},
        traps=(
            "One training image, /t/track/outdoor/sun_aophkoiosslinihb.jpg, cannot be decoded (TFDS issue 2889); TFDS "
            "now leaves it out, so a set that is prepared today has 76,127 training images instead of 76,128.",
            "TFDS makes images smaller, to at most 120,000 pixels, and its config `tfds` splits them at random: these "
            "are not the ten official partitions.",
            "Many .jpg files of the archive are PNG, GIF or BMP.",
        ),
    ),
    _photos(
        "imagenet",
        "imagenet2012",
        {
            "train": ("train[:98%]", 1_255_544),
            "validation": ("train[98%:]", 25_623),
            "test": ("validation", 50_000),
        },
        num_classes=1_000,
        licence=_IMAGENET_TERMS,
        citation="Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge (IJCV 2015)",
        download_bytes=0,
        disk_bytes=147_897_477_120 + 6_744_924_160,
        manual_files={"ILSVRC2012_img_train.tar": 147_897_477_120} | _VALIDATION_TAR,
        traps=(
            "Nobody can fetch it for you: register at image-net.org, and put the two tar files as they are where TFDS "
            "looks for them. With one of them missing TFDS prepares only the other, without an error.",
            "The 50,000 validation images are the test split here, as in the paper; validation is the last 2 % of "
            "train (the paper's table; its released configuration has 1 %).",
            _WORDNET,
        ),
    ),
    _photos(
        "imagenet_v2",
        "imagenet_v2/matched-frequency",
        {"test": ("test", 10_000)},
        num_classes=1_000,
        licence="none stated for the images, which are of Flickr; code MIT",
        citation="Recht, Roelofs, Schmidt, Shankar: Do ImageNet Classifiers Generalize to ImageNet? (ICML 2019)",
        download_bytes=1_264_079_360,
        disk_bytes=round(1.16 * GIB),
        traps=(
            "For evaluation only. There are three versions; `matched-frequency` is the one that papers report.",
            _WORDNET,
        ),
    ),
    _photos(
        "imagenet_real",
        "imagenet2012_real",
        {"test": ("validation", 50_000)},
        num_classes=1_000,
        licence=f"labels: see github.com/google-research/reassessed-imagenet; images: {_IMAGENET_TERMS}",
        citation="Beyer, Henaff, Kolesnikov, Zhai, van den Oord: Are we done with ImageNet? (arXiv 2006.07159)",
        keys=("image", "real_label"),
        multilabel=True,
        download_bytes=388_478,
        disk_bytes=round(6.25 * GIB),
        manual_files=_VALIDATION_TAR,
        traps=(
            "For evaluation only. An image has any number of labels, and a prediction is right if it is one of them; "
            "the about 3,500 images without any are not counted (`multilabel_accuracy`).",
            _WORDNET,
        ),
    ),
)

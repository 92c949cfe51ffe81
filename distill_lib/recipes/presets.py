"""Presets: the settings of every recipe that has a name. Those of the paper, and where they stand, are in a table."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from distill_lib.datasets import image_folder
from distill_lib.datasets.cards import CARDS
from distill_lib.errors import unknown

FILE = Path(__file__).parents[1] / "data" / "presets.toml"
TEACHERLESS = "none"
FOREIGN = ("fast", "medium", "long")
"""Presets of Pets that sets of TFDS without presets of their own have too."""
SMALL, MEDIUM = 20_000, 500_000  # training images below which a task is small, and medium, to BiT's hyper-rule
BATCHES = (16, 32, 64, 128, 256)  # of folders of pictures
STEPS_PER_EPOCH = 16  # at least, where the batch can be that small
WARMUP = 0.05  # of the steps


class Preset(NamedTuple):
    """Settings that have a name."""

    settings: dict[str, Any]  #: fields of a recipe that differ from what the presets of its data set have in common
    source: str = "this project"  #: where they are published
    notes: tuple[str, ...] = ()  #: what is decided that the source leaves open or contradicts, a note each


def tables(dataset: str) -> tuple[dict[str, Any], dict[str, Preset]]:
    """What all presets of a data set have in common, and the presets; "smoke" runs on made-up data in seconds.

    Those of a folder of pictures follow from how many there are; sets of TFDS without a row are treated as Pets.
    DistillError for an unknown data set, or a folder that is not as it must be.
    """
    if dataset.startswith(image_folder.FOLDER):
        images = len(image_folder.scan(image_folder.path_of(dataset)).pictures["train"])
        common, rows = COMMON["folder"], of_folder(images)
    elif is_foreign(dataset):
        common = COMMON["pets"] | {"teacher": TEACHERLESS}
        rows = {name: Preset(VARIANTS["pets"][name].settings, notes=_notes("foreign")) for name in FOREIGN}
    elif dataset in VARIANTS:
        common, rows = COMMON[dataset], VARIANTS[dataset]
    else:
        raise unknown("dataset", dataset, [*VARIANTS, "tfds:NAME", "folder:PATH"])
    return common, rows | {"smoke": Preset(SMOKE, notes=_notes("smoke"))}


def is_foreign(dataset: str) -> bool:
    """Whether a data set has no presets of its own."""
    return dataset.startswith(("tfds:", image_folder.FOLDER))


def describe(dataset: str, variant: str) -> Preset:
    """A preset with its source and notes; raises DistillError if there is none of that name."""
    rows = tables(dataset)[1]
    if variant not in rows:
        raise unknown(f"variant of {dataset}", variant, rows)
    return rows[variant]


def of_folder(images: int) -> dict[str, Preset]:
    """The presets of a folder with so many training images, by name; not in the paper, which has no set so small."""
    batch = max((size for size in BATCHES if size * STEPS_PER_EPOCH <= images), default=BATCHES[0])
    batch, rows = min(batch, images), {}
    for name, (shown, passes) in _TABLES["folder"]["lengths"].items():
        epochs = max(passes, round(shown / images))
        settings = {"epochs": epochs, "batch_size": batch, "warmup_steps": int(WARMUP * epochs * images / batch)}
        rows[name] = Preset(settings | _TABLES["folder"].get(name, {}), notes=_notes("folder"))
    return rows


def schedule(images: int) -> tuple[int, int]:
    """Steps of fine-tuning on so many images by BiT's hyper-rule, and how many are warm-up (BiT, section 3.3)."""
    if images < SMALL:
        return 500, 100
    return (10_000 if images < MEDIUM else 20_000), 500


def notes_on(dataset: str) -> tuple[str, ...]:
    """What is decided about all presets of a data set."""
    return _notes(*_TABLES["set_notes"].get(dataset, ()))


def _notes(*names: str) -> tuple[str, ...]:
    return tuple(_TABLES["notes"][name] for name in names)


def _common(name: str) -> dict[str, Any]:
    own = _TABLES["common"][name]
    settings = _TABLES["common"].get(own.get("like"), {}) | own
    lists = {key: tuple(value) for key, value in settings.items() if isinstance(value, list)}
    return {key: value for key, value in (settings | lists).items() if key != "like"}


def _teacher(dataset: str) -> Preset:
    """How BiT's hyper-rule makes the teacher of one of the paper's sets: length and mixup follow from its images."""
    images, fixed = CARDS[dataset].counts["train"], _TABLES["bit_hyperrule"]
    steps, warmup = schedule(images)
    crops, mixed = "labels" if dataset == "imagenet" else "labels/rc", images >= SMALL
    settings = fixed | {"epochs": steps * fixed["batch_size"] / images, "warmup_steps": warmup}
    settings |= {"policy": f"{crops}/mix", "mixup_beta": 0.1} if mixed else {"policy": crops}
    shown = "teacher_crops_imagenet" if dataset == "imagenet" else "teacher_crops"
    assumed, warm, *notes = _notes("teacher", "teacher_warmup", *([] if mixed else ["teacher_stairs"]), shown)
    source = "BiT, sections 2.2 and 3.3 (arXiv 1912.11370v3)"
    return Preset(settings, source, (assumed, warm.format(warmup), *notes, *_notes("teacher_shown")))


def _of_imagenet() -> dict[str, Preset]:
    rows = {}
    for series in _TABLES["imagenet"]:
        for epochs in series["epochs"]:
            names = [*series.get("notes", ()), *filter(None, [series.get("notes_of", {}).get(str(epochs))])]
            settings = series.get("settings", {}) | {"epochs": epochs}
            rows[f"{series['name']}_{epochs}"] = Preset(settings, series["source"], _notes(*names))
    return rows


def _of_small_set(dataset: str) -> dict[str, Preset]:
    rows = {}
    for epochs, temperature, rate, decay, *notes in _TABLES["table_4"][dataset]:
        settings = {"epochs": epochs, "temperature": temperature, "learning_rate": rate, "weight_decay": decay}
        rows[f"mix_{epochs}"] = Preset(settings, "Table 4 and Fig. 4", _notes(*notes))
    for name, (policy, epochs, rate) in _TABLES["table_4_labels"][dataset].items():
        settings = {"policy": policy, "epochs": epochs, "learning_rate": rate, "weight_decay": 1e-4, "temperature": 1}
        settings |= {"start": "BiT-M-R50x1"} if name == "transfer" else {}
        rows[f"{name}_{epochs}"] = Preset(settings, "Table 4 and Fig. 4 (baseline)", _notes("table_4_labels"))
    for source in _TABLES["out_of_domain"].get(dataset, ()):
        for length in _TABLES["lengths"][dataset]:
            epochs = length * CARDS[dataset].counts["train"] / CARDS[source].counts["train"]  # as many steps
            settings = rows[f"mix_{length}"].settings | {"transfer_set": source, "epochs": epochs}
            rows[f"from_{source}_{length}"] = Preset(settings, "Fig. 6 and section 3.8", _notes("other_images"))
    return rows


def _of_paper(dataset: str) -> dict[str, Preset]:
    """Fast, medium and long, then a row of the paper each, and the teacher."""
    rows = _of_imagenet() if dataset == "imagenet" else _of_small_set(dataset)
    named = zip(FOREIGN, _TABLES["lengths"][dataset], strict=True)
    return {name: rows[f"mix_{epochs}"] for name, epochs in named} | rows | {"teacher": _teacher(dataset)}


_TABLES: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
PAPER_SETS = tuple(_TABLES["lengths"])
SMOKE: dict[str, Any] = _TABLES["smoke"]
COMMON = {name: _common(name) for name in _TABLES["common"]}
VARIANTS = {
    **{dataset: {name: Preset(settings) for name, settings in own.items()} for dataset, own in _TABLES["own"].items()},
    **{dataset: _of_paper(dataset) for dataset in PAPER_SETS},
}

"""Recipes by name: presets, in a table with those of the paper, and what a recipe cannot ask for."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from distill_lib import models, teachers, views
from distill_lib.datasets import image_folder
from distill_lib.datasets.cards import CARDS, inherited
from distill_lib.errors import DistillError, unknown
from distill_lib.recipes.recipe import Recipe
from distill_lib.teachers import published

FILE = Path(__file__).parents[1] / "data" / "presets.toml"
TEACHERLESS = "none"
FOREIGN = ("fast", "medium", "long")
"""Presets of Pets that sets of TFDS without presets of their own have too."""
SMALL, MEDIUM = 20_000, 500_000  # training images below which a task is small, and medium, to BiT's hyper-rule
BATCHES = (16, 32, 64, 128, 256)  # of folders of pictures
STEPS_PER_EPOCH = 16  # at least, where the batch can be that small
WARMUP = 0.05  # of the steps
_TRAINED_FIRST = {
    "tfds": " with `-p policy labels`",
    "folder": ": `nox -s run -- own_photographs -p folder PATH` trains teacher and student",
}


class Preset(NamedTuple):
    """Settings that have a name."""

    settings: dict[str, Any]  #: fields of a recipe that differ from what the presets of its data set have in common
    source: str = "this project"  #: where they are published
    notes: tuple[str, ...] = ()  #: what is decided that the source leaves open or contradicts, a note each


def tables(dataset: str) -> tuple[dict[str, Any], dict[str, Preset]]:
    """What all presets of a data set have in common, and the presets; DistillError for an unknown set, or bad folder.

    Those of a folder of pictures follow from how many there are; sets of TFDS without a row are treated as Pets.
    """
    if dataset.startswith(image_folder.FOLDER):
        images = image_folder.scan(image_folder.path_of(dataset)).counts["train"]
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
    return _found(dataset, variant)[1]


def _found(dataset: str, variant: str) -> tuple[dict[str, Any], Preset]:
    common, rows = tables(dataset)
    if variant not in rows:
        raise unknown(f"variant of {dataset}", variant, rows)
    return common, rows[variant]


def names() -> list[str]:
    """Data sets that have presets of their own; `tfds:NAME` has those of Pets, and those of `folder:PATH` are made."""
    return list(VARIANTS)


def variants(dataset: str) -> list[str]:
    """Presets of a data set; raises DistillError for an unknown one. "smoke" runs on mock data in seconds."""
    return list(tables(dataset)[1])


def get(dataset: str, variant: str, **overrides: Any) -> Recipe:
    """Looks up a preset and changes single settings of it: fields of `Recipe`; None keeps the preset's value.

    A data set is one of `names()`, or "tfds:NAME" or "folder:PATH", which have no teacher; a variant is one of
    `variants(dataset)`. DistillError for an unknown name, settings without sense, no teacher, or a bad folder.
    """
    dataset = image_folder.absolute(str(dataset))  # one run has one name, from whichever folder it is started
    common, preset = _found(dataset, variant)
    settable = [field.name for field in dataclasses.fields(Recipe) if field.name not in ("dataset", "variant")]
    for name in overrides:
        if name not in settable:
            raise unknown("recipe setting", name, settable)
    given = {name: value for name, value in overrides.items() if value is not None}
    if "transfer_set" in given:
        given["transfer_set"] = image_folder.absolute(str(given["transfer_set"]))
    recipe = Recipe(dataset=dataset, variant=variant, **(common | preset.settings | given))
    if recipe.has_teacher and recipe.teacher == TEACHERLESS:
        raise DistillError(
            f"{dataset} has no teacher of its own: name one that knows its classes, as in `-p teacher PATH.npz`, or "
            f"train one first{_TRAINED_FIRST[dataset.partition(':')[0]]}."
        )
    refuse_impossible(recipe)
    return recipe


def refuse_impossible(recipe: Recipe) -> None:
    """Raises DistillError, with the reason, where a recipe's parts cannot work together."""
    if recipe.has_teacher:
        _check_teachers(recipe)
    if views.policy(recipe.policy).mix and recipe.batch_size < 2:
        raise DistillError(f"policy {recipe.policy} mixes two images of a batch: batch_size must be at least 2, got 1.")
    if recipe.label_smoothing and not (recipe.has_teacher and recipe.distance == "hard"):
        raise DistillError(
            f"label_smoothing smooths a teacher's first guess: choose a policy with a teacher and distance hard, not "
            f"{recipe.distance if recipe.has_teacher else recipe.policy}."
        )
    if recipe.optimizer == "schedule_free" and recipe.schedule != "constant":
        raise DistillError(
            f"optimizer schedule_free averages weights instead of a decay: choose schedule constant, not "
            f"{recipe.schedule}."
        )
    if recipe.dataset in CARDS and CARDS[recipe.dataset].multilabel and (recipe.label_share or not recipe.has_teacher):
        raise DistillError(
            f"{recipe.dataset} has no labels to learn from: choose a policy with a teacher, label_share 0."
        )
    images = {name: card.counts["train"] for name, card in CARDS.items() if "train" in card.counts}
    source = recipe.transfer_set
    if source is not None and source not in images and not is_foreign(source):
        raise unknown("transfer_set", source, [*images, "tfds:NAME", "folder:PATH"])
    if source == recipe.dataset:
        raise DistillError(f"transfer_set {source} is the data set itself: name another, or leave transfer_set out.")
    models.check_resolution(recipe.student, recipe.resolution)
    count = images.get(source or recipe.dataset)
    if count is not None and recipe.variant != "smoke":
        recipe.check_length(min(count, recipe.train_images or count))


def _check_teachers(recipe: Recipe) -> None:
    parts = teachers.parts(recipe.teacher)
    twice = next((name for name, side in parts if parts.count((name, side)) > 1), None)
    if twice is not None:
        raise DistillError(f"teacher {twice} is named twice, and its mean with itself is itself: name another, or one.")
    if recipe.ensemble == "probabilities" and len(parts) == 1:
        raise DistillError(
            f"ensemble {recipe.ensemble} is a mean over several teachers, and {recipe.teacher} is one: name others "
            "after ' + ', or leave ensemble out."
        )
    classes = CARDS[recipe.dataset].num_classes if recipe.dataset in CARDS else None
    for name, side in parts:
        if (known := published.CHECKPOINTS.get(name)) is None:
            continue
        models.check_resolution(known.model, side or known.resolution)
        if classes not in (None, known.num_classes):
            raise DistillError(
                f"teacher {name} knows {known.num_classes} classes, and {recipe.dataset} has {classes}: name another."
            )


def of_folder(images: int) -> dict[str, Preset]:
    """The presets of a folder with so many training images, by name; not in the paper, which has no set so small."""
    batch = max((size for size in BATCHES if size * STEPS_PER_EPOCH <= images), default=BATCHES[0])
    batch, rows = min(batch, images), {}
    for name, (views_seen, passes) in _TABLES["folder"]["lengths"].items():
        epochs = max(passes, round(views_seen / images))
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


def _teacher(dataset: str) -> Preset:
    """How BiT's hyper-rule makes the teacher of one of the paper's sets: length and mixup follow from its images."""
    images, fixed = CARDS[dataset].counts["train"], _TABLES["bit_hyperrule"]
    steps, warmup = schedule(images)
    crops, mixed = "labels" if dataset == "imagenet" else "labels/rc", images >= SMALL
    settings = fixed | {"epochs": steps * fixed["batch_size"] / images, "warmup_steps": warmup}
    settings |= {"policy": f"{crops}/mix", "mixup_beta": 0.1} if mixed else {"policy": crops}
    crop_note = "teacher_crops_imagenet" if dataset == "imagenet" else "teacher_crops"
    assumed, warm, *notes = _notes("teacher", "teacher_warmup", *([] if mixed else ["teacher_stairs"]), crop_note)
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
    rows = _of_imagenet() if dataset == "imagenet" else _of_small_set(dataset)
    named = zip(FOREIGN, _TABLES["lengths"][dataset], strict=True)
    return {name: rows[f"mix_{epochs}"] for name, epochs in named} | rows | {"teacher": _teacher(dataset)}


_TABLES: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
PAPER_SETS = tuple(_TABLES["lengths"])
SMOKE: dict[str, Any] = _TABLES["smoke"]
COMMON = inherited(_TABLES["common"])
VARIANTS = {
    **{dataset: {name: Preset(settings) for name, settings in own.items()} for dataset, own in _TABLES["own"].items()},
    **{dataset: _of_paper(dataset) for dataset in PAPER_SETS},
}

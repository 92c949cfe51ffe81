"""Made-up records for tests of figures and of the book; they are written to temporary folders only.

The numbers come from formulas and noise. They look like runs and mean nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from distill_lib import recipes, records

POLICIES = ("labels", "fix/cc", "fix/ic_ens", "ind/ic", "same/ic", "mix")
LENGTHS = {"short": 3, "medium": 3, "long": 1}  # variant: seeds
_LIMIT = {"labels": 0.83, "fix/cc": 0.845, "fix/ic_ens": 0.85, "ind/ic": 0.84, "same/ic": 0.885, "mix": 0.89}
_SLOWNESS = {"labels": 3, "fix/cc": 8, "fix/ic_ens": 8, "ind/ic": 7, "same/ic": 7, "mix": 13}
_LOSS = {"labels": 0.2, "fix/cc": 0.2, "fix/ic_ens": 0.15, "ind/ic": 0.45, "same/ic": 0.1, "mix": 0.13}


def write_run(root: Path, variant: str, policy: str, seed: int, **settings) -> dict:
    """Writes one made-up run of `fashion` and returns its record."""
    recipe = recipes.get("fashion", variant, policy=policy, seed=seed, **settings)
    images = recipe.train_images or 1020
    steps = recipe.steps(images)
    noise = np.random.default_rng([seed, steps, len(policy), images])
    scarcity = (1 - images / 1020) * (0.06 if policy == "mix" else 0.09)
    final = _LIMIT[policy] - _SLOWNESS[policy] * 8 / steps - scarcity + noise.normal(0, 0.003)
    final -= abs(np.log10(recipe.learning_rate / 3e-3)) * 0.02 + abs(recipe.temperature - 2) * 0.003
    loss = _LOSS[policy] * (1 + 2000 / steps) * float(np.exp(noise.normal(0, 0.02)))
    result = {"train_loss": loss}
    for split, shift in (("train", 0.03), ("validation", 0.005), ("test", 0.0)):
        result |= {f"{split}_top1": float(final + shift), f"{split}_ece": 0.04}
        if policy != "labels":
            result |= {f"{split}_kl": loss / 2, f"{split}_agreement": float(final + 0.04)}
    rows = []
    for part in np.arange(1, recipe.evaluations + 1) / recipe.evaluations:
        row = {"step": round(part * steps), "epoch": part * recipe.epochs, "loss": loss * (1 + 2 * (1 - part))}
        row |= {"learning_rate": recipe.learning_rate * (1 - part)}
        rows.append(row | {"validation_top1": float(final + 0.005 - 0.12 * (1 - part) ** 2)})
    record = {
        "schema": records.SCHEMA,
        "run_id": recipe.run_id("made up"),
        "study": recipe.study,
        "mock": False,
        "recipe": dataclasses.asdict(recipe),
        "result": result,
        "steps": steps,
        "wall_seconds": steps * 0.07,
        "images_per_second": 1800.0,
        "resumed": 0,
        "peak_memory_mb": 900.0,
        "teacher": {"name": "fashion", "sha256": "0" * 64} if policy != "labels" else None,
        "device": "no device",
        "device_count": 1,
        "date": f"2001-02-0{seed + 1}T00:00:00+00:00",
        "commit": "made-up",
        "dirty": False,
        "versions": {"python": "3"},
    }
    if recipe.stored:
        record["teacher"] |= {"stored": {"kept": recipe.stored, "bytes_per_view": 2.0 * recipe.stored}}  # type: ignore
    records.write(root / recipe.study / str(record["run_id"]), record, rows)
    return record


def write_teacher(root: Path) -> dict:
    """Writes a made-up record of the embedded teacher's own run."""
    recipe = recipes.get("fashion_teacher", "full")
    record = write_run(root, "quick", "labels", 9)
    folder = root / str(record["study"]) / str(record["run_id"])
    for name in ("run.json", "metrics.csv"):
        (folder / name).unlink()
    folder.rmdir()
    result = {"train_loss": 0.2, "test_top1": 0.92, "validation_top1": 0.92, "test_top1_under_crops": 0.83}
    record |= {"run_id": recipe.run_id(), "study": recipe.study, "recipe": dataclasses.asdict(recipe), "result": result}
    rows = [{"step": record["steps"], "epoch": 24.0, "loss": 0.2, "learning_rate": 0.0, "validation_top1": 0.92}]
    records.write(root / recipe.study / str(record["run_id"]), record, rows)
    return record


VERSIONS = {
    "consistent teaching": 0.82, "a second key": 0.8, "answers kept by image": 0.79, "another range of values": 0.7,
    "function matching": 0.81, "another lambda": 0.77,
}  # fmt: skip


def write_silent_bugs(root: Path) -> None:
    """Writes a made-up record of the notebook `silent_bugs`."""
    recipe, steps = recipes.get("fashion", "quick", view_seed=0), [20, 40, 60]
    students = [
        {"version": version, "seed": seed, "loss": [1.5, 1.0, 0.4], "true_loss": [1.4, 1.0, 0.5], "between": [0.7, 0.5]}
        | {f"test_{name}": top1 + 0.003 * (seed * len(version) % 4) for name in ("top1", "agreement", "kl")}
        for version, top1 in VERSIONS.items()
        for seed in range(3)
    ]
    record = {
        "recipe": dataclasses.asdict(recipe),
        "steps": 60,
        "wall_seconds": 60.0,
        "report_steps": steps,
        "shares": [0.5, 1.0],
    }
    record |= {"mock": False, "commit": "made-up", "device": "no device", "date": "2001-02-01T00:00:00+00:00"}
    record |= {"versions": {"python": "0", "jax": "0"}}
    (root / "silent_bugs.json").write_text(json.dumps(record | {"students": students}))


def write_everything(root: Path) -> None:
    """Writes every study that the book knows."""
    for policy in POLICIES:
        for variant, seeds in LENGTHS.items():
            for seed in range(seeds):
                write_run(root, variant, policy, seed)
    whole = recipes.get("fashion", "support").epochs
    for policy, part, seed in itertools.product(("same/ic", "mix"), (1, 2, 4), range(3)):
        images = None if part == 1 else 1020 // part
        write_run(root, "support", policy, seed, train_images=images, epochs=whole * part, view_seed=0)
    for policy in ("labels", "fix/cc", "ind/ic", "same/ic", "mix"):
        write_run(root, "quick", policy, 0)
    for policy, kept, seed in itertools.product(("same/ic", "mix"), (3, 10), range(3)):
        write_run(root, "medium", policy, seed, stored=kept)
    for rate, decay, temperature in itertools.product((1e-3, 3e-3, 1e-2), (1e-5, 1e-4), (1, 2, 5)):
        for policy in ("same/ic", "mix"):
            settings = {"learning_rate": rate, "weight_decay": decay, "temperature": temperature}
            write_run(root, "grid", policy, 0, **settings)
    write_teacher(root)
    write_silent_bugs(root)


if __name__ == "__main__":
    write_everything(Path(sys.argv[1]))

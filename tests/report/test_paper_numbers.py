"""The paper's numbers: all there, each repeated by a preset with its settings, beside what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_up
import pandas as pd
import pytest

from distill_lib import recipes, records, teachers
from distill_lib.recipes import Recipe
from distill_lib.report import cost, paper_numbers
from distill_lib.teachers import published

ROWS = paper_numbers.numbers().to_dict("records")
POLICIES = {
    "fixed teacher": "fix/cc",
    "consistent teaching": "same/ic",
    "student begins": "same/ic",
    "function matching": "mix",
    "labels + mixup": "labels/mix",
}
STUDENTS = {"BiT": "bit_r50x1", "R50": "bit_r50x1", "MobileNet v3 Large (GN)": "mobilenet_v3_large_gn"} | {
    "MobileNet v3 Small (GN)": "mobilenet_v3_small_gn",
    "MobileNet v3 Large (BN)": "mobilenet_v3_large_bn",
}


def teacher_sizes(recipe: Recipe) -> str:
    """Resolutions of a recipe's teachers, as the paper writes them."""
    sizes = [published.CHECKPOINTS[name].resolution for name in recipe.teacher.split(" + ")]
    return "+".join(map(str, sizes))


def test_all_numbers_of_the_paper_are_there() -> None:
    """Each with a source; each is repeated by a command, or says why not."""
    assert len(ROWS) == 143
    for row in ROWS:
        assert row["source"] and row["value"] and row["experiment"]
        assert row["kind"] in ("train", "judge", "check", "none")
        assert row["command"] or row["note"]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["kind"] == "train"], ids=lambda row: f"{row['on']} {row['name']}"
)
def test_presets_have_the_settings_that_the_paper_gives(row: dict[str, str]) -> None:
    """Epochs, temperature, learning rate, weight decay, resolutions, networks, policy and optimiser."""
    recipe = recipes.get(row["on"], row["name"])
    if row["epochs"]:
        assert recipe.epochs == float(row["epochs"])
    for name in ("temperature", "learning_rate", "weight_decay"):
        assert not row[name] or getattr(recipe, name) == float(row[name]), name
    seen, _, shown = row["resolution"].rpartition("->S")
    assert recipe.resolution == int(shown)
    assert not seen or "T" + teacher_sizes(recipe) == seen
    policy = next((key for words, key in POLICIES.items() if row["setting"].startswith(words)), "labels")
    if "best of the four" not in row["setting"]:
        assert recipe.policy == policy
    assert recipe.optimizer == ("shampoo" if "Shampoo" in row["setting"] else "sgd" if "sgd" in row["name"] else "adam")
    assert recipe.student == next(name for words, name in STUDENTS.items() if row["student"].startswith(words))
    assert (recipe.start == "BiT-M-R50x1") == ("BiT-M-R50x1" in row["setting"])
    assert (recipe.transfer_set is not None) == (row["experiment"] == "out of domain")


def test_every_row_of_the_papers_tables_is_a_preset_and_the_other_way_round() -> None:
    """Beside these there are only fast, medium and long, the figure without numbers, teachers, and the smoke test."""
    used = {(row["on"], row["name"]) for row in ROWS if row["kind"] == "train"}
    for dataset in ("flowers", "pets", "food", "sun397", "imagenet"):
        for variant in recipes.variants(dataset):
            named = variant in ("fast", "medium", "long", "teacher", "smoke") or variant.startswith("from_")
            assert named or (dataset, variant) in used, variant


def test_the_figures_of_the_book_take_table_3() -> None:
    """Seven lengths of three policies, and the teacher."""
    found = paper_numbers.curves()
    assert found["policy"].value_counts().to_dict() == {"fix/cc": 7, "same/ic": 7, "mix": 7, "teacher": 1}
    best = found.set_index(["policy", "epochs"]).loc[("mix", 9600.0)]
    assert best["test_top1"] == pytest.approx(0.8231) and best["name"] == "function matching"
    assert best["source"] == "Beyer et al. 2022 (arXiv 2106.05237v2, Table 3)"
    assert found.loc[found["policy"] == "teacher", "test_top1"].item() == pytest.approx(0.83)
    assert paper_numbers.curves("flowers")["policy"].tolist() == ["mix"] * 4 + ["teacher"]
    assert paper_numbers.curves("fashion").empty


NO_RUNS = pd.DataFrame(columns=["run_id", "study", "policy", "epochs", "seed", "test_top1"])


@pytest.fixture(autouse=True)
def quick_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting the operations of the paper's networks has tests of its own, and takes long."""
    for role in ("student", "teacher"):
        monkeypatch.setattr(cost, f"{role}_operations", lambda recipe: 1e10)


def written(tmp_path: Path, dataset: str, variant: str, top1: list[float], **settings: Any) -> pd.DataFrame:
    """Made-up records of a preset, one a seed."""
    for seed, share in enumerate(top1):
        record = made_up.write_run(tmp_path, "medium", "mix", seed)
        recipe = recipes.get(dataset, variant, seed=seed, **settings)
        record |= {"recipe": vars(recipe), "result": record["result"] | {"test_top1": share}, "study": recipe.study}
        record |= {"run_id": recipe.run_id()}
        records.write(tmp_path / recipe.study / recipe.run_id(), record, [])
    return records.read(tmp_path)


def test_all_numbers_appear_with_a_command_or_a_reason() -> None:
    """Each command names a preset, a network or a set that there is."""
    for entry in paper_numbers.entries(NO_RUNS).itertuples():
        if entry.kind == "train":
            assert entry.name in recipes.variants(entry.on)
            assert entry.verdict == paper_numbers.NOT_RUN and entry.hours
        elif entry.kind == "judge":
            assert entry.name in teachers.names() and entry.verdict == paper_numbers.NOT_RUN and entry.hours
        elif entry.kind == "check":
            assert entry.on in recipes.names() and entry.here and entry.verdict
        else:
            assert not entry.command and not entry.here and entry.notes


def test_without_runs_only_the_cards_can_disagree() -> None:
    """They do in one place, and the note says why."""
    entries = paper_numbers.entries(NO_RUNS)
    (entry,) = entries[entries["verdict"] == paper_numbers.DISAGREES].itertuples()
    assert (entry.dataset, entry.here) == ("Food101", "train[:90%]|train[90%:]|validation")
    assert "no split `test`" in entry.notes[0]


def measured(runs: pd.DataFrame, experiment: str) -> list[Any]:
    """The entries of an experiment that were measured."""
    entries = paper_numbers.entries(runs, experiment=experiment)
    return list(entries[entries["here"] != ""].itertuples())


@pytest.mark.parametrize(("share", "verdict"), [(0.9201, "agrees"), (0.90, "disagrees")])
def test_a_measured_number_is_shown_with_its_runs_and_judged(tmp_path: Path, share: float, verdict: str) -> None:
    """Under whichever name of the preset it was run; the paper has 92.83."""
    runs = written(tmp_path, "flowers", "fast", [share, share + 0.002])
    (entry,) = measured(runs, "patience on Flowers")
    assert (entry.epochs, entry.value, entry.verdict) == ("10000", "92.83", verdict)
    assert entry.here.startswith(f"{100 * share + 0.1:.2f}") and "(n = 2)" in entry.here
    assert all(run_id in entry.notes[-1] for run_id in runs.loc[runs["dataset"] == "flowers", "run_id"])
    entries = paper_numbers.entries(runs, on="flowers")
    shown = paper_numbers.reference(entries[entries["kind"] == "train"]).data
    assert "function matching, 10,000 epochs</summary>" in shown and ("<strong>disagrees</strong>" in shown) == (
        verdict == "disagrees"
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_networks_of_either_precision_repeat_a_row_of_the_paper(dtype: str, tmp_path: Path) -> None:
    """The paper names none; whatever the preset has."""
    (entry,) = measured(written(tmp_path, "flowers", "fast", [0.92], dtype=dtype), "patience on Flowers")
    assert entry.here.startswith("92.00") and entry.verdict == "agrees"


def test_a_failed_run_of_the_paper_is_not_compared(tmp_path: Path) -> None:
    """N/A is no number; 0.10 is one, and a good run of ours disagrees with it."""
    runs = written(tmp_path, "imagenet", "s160_mix_4800", [0.8])
    found = {entry.value: entry for entry in measured(runs, "resolutions")}
    assert {value: entry.verdict for value, entry in found.items()} == {"N/A": "", "0.1": "disagrees"}
    assert any("failed" in note for note in found["0.1"].notes)


def test_a_set_shows_its_presets_beside_the_papers_numbers(tmp_path: Path) -> None:
    """What was run with other settings is not the preset's; names with the same settings share a row."""
    written(tmp_path, "pets", "fast", [0.5], learning_rate=1.0)
    shown = paper_numbers.show("pets", written(tmp_path, "pets", "fast", [0.87, 0.87])).data
    mean = "87.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.00 (n = 2) disagrees"
    assert "fast, mix_1000</summary>" in shown and mean in shown and "~30" in shown
    assert "91.03" not in shown and "92.83" not in shown and paper_numbers.NOT_RUN in shown


def test_the_reference_table_has_every_number_with_its_origin_and_can_be_filtered() -> None:
    """Notes and origin unfold at a row's name; `filter.js` looks for the class and two headings."""
    shown = paper_numbers.reference(paper_numbers.entries(NO_RUNS)).data
    assert shown.startswith('<div class="wide filterable">') and shown.count("<tr>") == len(ROWS)
    assert "<th>set</th>" in shown and "<th>verdict</th>" in shown and shown.count("<details>") == len(ROWS)
    assert "<code>nox -s run -- pets -p variant mix_300</code>" in shown and "train[:90%]|<wbr>train[90%:]" in shown

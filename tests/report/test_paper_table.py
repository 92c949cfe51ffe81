"""The report: every number of the paper is there, with a command that exists, and with what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_up
import pandas as pd
import pytest

from distill_lib import recipes, records, teachers
from distill_lib.report import cost, dataset_page, paper_numbers, paper_table

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
    """In the groups of the page, and each command names a preset, a network or a set that there is."""
    entries = paper_table.entries(NO_RUNS)
    assert len(entries) == 143
    page = (Path(__file__).parents[2] / "book" / "report.md").read_text()
    assert all(f'paper_table.entries(runs, "{name}")' in page for name in paper_table.experiments())
    for row, entry in zip(paper_numbers.table().to_dict("records"), entries, strict=True):
        again = paper_numbers.repeat(row["repeat"])
        assert entry.paper == row["value"] and entry.command == again.command
        if again.kind == "train":
            assert again.name in recipes.variants(again.dataset)
            assert entry.here == paper_table.NOT_RUN and entry.hours
        elif again.kind == "judge":
            assert again.name in teachers.names() and entry.here == paper_table.NOT_RUN and entry.hours
        elif again.kind == "check":
            assert again.dataset in recipes.names() and entry.here and entry.verdict
        else:
            assert not entry.command and not entry.here and entry.notes


def test_without_runs_only_the_cards_can_disagree() -> None:
    """They do in one place, and the note says why."""
    (entry,) = paper_table.disagreements(NO_RUNS)
    assert (entry.dataset, entry.here) == ("Food101", "train[:90%]|train[90%:]|validation")
    assert "no split `test`" in entry.notes[0]
    assert "143 numbers" in paper_table.in_words(NO_RUNS) and "9 say how" in paper_table.in_words(NO_RUNS)
    assert "of which 0 are measured so far." in paper_table.in_words(
        NO_RUNS
    ) and "8 of these agree" in paper_table.in_words(NO_RUNS)


@pytest.mark.parametrize(("share", "verdict"), [(0.9201, "agrees"), (0.90, "disagrees")])
def test_a_measured_number_is_shown_with_its_runs_and_judged(tmp_path: Path, share: float, verdict: str) -> None:
    """Under whichever name of the preset it was run; the paper has 92.83."""
    runs = written(tmp_path, "flowers", "fast", [share, share + 0.002])
    entries = paper_table.entries(runs, "patience on Flowers")
    (entry,) = [entry for entry in entries if entry.here != paper_table.NOT_RUN]
    assert (entry.epochs, entry.paper, entry.verdict) == ("10,000", "92.83", verdict)
    assert entry.here.startswith(f"{100 * share + 0.1:.2f}") and "n = 2: " in entry.here
    assert all(run_id in entry.here for run_id in runs.loc[runs["dataset"] == "flowers", "run_id"])
    assert (entry in paper_table.disagreements(runs)) == (verdict == "disagrees")
    agree = int(verdict == "agrees")
    assert f"1 are measured so far: {agree} agree and {1 - agree} disagree." in paper_table.in_words(runs)
    assert ("<strong>disagrees</strong>" in paper_table.show(entries).data) == (verdict == "disagrees")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_networks_of_either_precision_repeat_a_row_of_the_paper(dtype: str, tmp_path: Path) -> None:
    """The paper names none; whatever the preset has."""
    (entry,) = [
        entry
        for entry in paper_table.entries(
            written(tmp_path, "flowers", "fast", [0.92], dtype=dtype), "patience on Flowers"
        )
        if entry.here != paper_table.NOT_RUN
    ]
    assert entry.here.startswith("92.00") and entry.verdict == "agrees"


def test_a_failed_run_of_the_paper_is_not_compared(tmp_path: Path) -> None:
    """N/A is no number; 0.10 is one, and a good run of ours disagrees with it."""
    runs = written(tmp_path, "imagenet", "s160_mix_4800", [0.8])
    found = {
        entry.paper: entry for entry in paper_table.entries(runs, "resolutions") if entry.here != paper_table.NOT_RUN
    }
    assert {value: entry.verdict for value, entry in found.items()} == {"N/A": "", "0.1": "disagrees"}
    assert any("failed" in note for note in found["0.1"].notes)


def test_the_page_of_a_set_shows_its_experiments_presets_numbers_and_results(tmp_path: Path) -> None:
    """With records and without; every number of the paper once, those about the data left out."""
    assert "no records yet" in dataset_page.results("pets", NO_RUNS).data
    assert "nox -s run -- patience -p dataset pets" in dataset_page.experiments("pets", NO_RUNS).data
    written(tmp_path, "pets", "fast", [0.5], learning_rate=1.0)
    runs = written(tmp_path, "pets", "fast", [0.87, 0.87])
    assert "87.00" in dataset_page.results("pets", runs).data
    presets, others = dataset_page.table("pets", runs).data, dataset_page.numbers("pets", runs).data
    mean = "87.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.00"
    assert "fast, mix_1000" in presets and f"{mean} disagrees" in presets and "~30" in presets
    assert "91.03" in others and "~30" not in others
    assert not any(other in presets + others for other in ("train[:90%]", "92.83"))


def test_commands_that_differ_in_the_preset_alone_stand_above_the_table() -> None:
    """Where they differ in more, each row has its own."""
    shown = paper_table.show(paper_table.entries(NO_RUNS, "patience on Pets")).data
    start = "nox -s run -- distill -p dataset pets -p variant"
    assert shown.count(start) == 1 and "<code>mix_300</code>" in shown and "distill evaluate" in shown
    several = paper_table.show(paper_table.entries(NO_RUNS)).data
    assert f"{start} mix_300" in several and "train[:90%]|<wbr>train[90%:]" in several

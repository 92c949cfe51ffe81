"""The paper's numbers beside ours: every row of its tables, what was measured here, what to type and what it costs."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib import datasets, recipes
from distill_lib.recipes import presets
from distill_lib.report import aggregate, budget, matching, paper_numbers, preset_table
from distill_lib.report.paper_numbers import Repeat

if TYPE_CHECKING:
    from IPython.display import HTML

NOT_RUN = "not run"
TOLERANCE = 1.0
"""Points by which a mean may differ from the paper's number, which is of one run and has no spread, and still agree."""
AGREES, DISAGREES = "agrees", "disagrees"
PRESET = "PRESET"


@dataclass(frozen=True)
class Entry:
    """One number of the paper, and ours.

    Attributes:
        experiment: what it belongs to.
        table: where the paper has it.
        dataset: of the paper.
        setting: what was run.
        epochs: length of the schedule as text; empty where there is none.
        paper: the paper's number.
        here: ours as mean ± standard deviation with the runs behind it, or `NOT_RUN`, or empty where there can be none.
        verdict: `AGREES`, `DISAGREES` or empty.
        hours: device-hours as text.
        command: what to type; empty where nothing repeats the number.
        notes: what is decided, inferred or contradictory about it.
    """

    experiment: str
    table: str
    dataset: str
    setting: str
    epochs: str
    paper: str
    here: str
    verdict: str
    hours: str
    command: str
    notes: tuple[str, ...]


def entries(
    runs: pd.DataFrame, experiment: str | None = None, device: str = budget.DEVICE, *, dataset: str | None = None
) -> list[Entry]:
    """The paper's numbers in the order of its tables.

    Args:
        runs: the table of `records.read`.
        experiment: only this one's; None takes all.
        device: what hours are given for.
        dataset: only what is repeated on this set; None takes all. Costs are counted for no more than that.
    """
    rows = [row for row in paper_numbers.table().to_dict("records") if experiment in (None, row["experiment"])]
    wanted = [row for row in rows if dataset in (None, paper_numbers.repeat(row["repeat"]).dataset)]
    return [_entry(row, runs, device) for row in wanted]


def experiments() -> list[str]:
    """Names of the groups that the paper's numbers are in."""
    return list(dict.fromkeys(paper_numbers.table()["experiment"]))


def disagreements(runs: pd.DataFrame) -> list[Entry]:
    """The numbers that were measured here and come out otherwise."""
    return [entry for entry in entries(runs) if entry.verdict == DISAGREES]


def in_words(runs: pd.DataFrame) -> str:
    """How many numbers the paper has, what they are of, and what became of them here."""
    kinds = [paper_numbers.repeat(text).kind for text in paper_numbers.table()["repeat"]]
    verdicts: dict[str, list[str]] = {"accuracies": [], "data": [], "others": []}
    for kind, entry in zip(kinds, entries(runs), strict=True):
        of = {"check": "data", "none": "others"}.get(kind, "accuracies")
        verdicts[of].append(NOT_RUN if entry.here == NOT_RUN else entry.verdict)
    runnable, data = verdicts["accuracies"], verdicts["data"]
    measured = [verdict for verdict in runnable if verdict != NOT_RUN]
    said = f": {measured.count(AGREES)} agree and {measured.count(DISAGREES)} disagree" if measured else ""
    sentences = (
        f"The paper's tables hold {len(kinds)} numbers.",
        f"{len(runnable)} are accuracies that a command repeats, of which {len(measured)} are measured so far{said}.",
        f"{len(data)} say how its data are split, and {data.count(AGREES)} of these agree with what is used here.",
        f"{len(verdicts['others'])} are of other systems or cannot be repeated, and their notes say why.",
        f"An accuracy agrees when its mean is at most {TOLERANCE:g} point away: the paper gives one run each, and "
        "no spread.",
    )
    return " ".join(sentences)


def show(shown: list[Entry]) -> HTML:
    """Entries as a table of a page, with their notes, each once, below it; columns that are empty are left out.

    Commands that differ in the preset alone stand above the table, and the presets in it.
    """
    from IPython.display import HTML

    if not shown:
        return HTML("<p>There are no such numbers.</p>")
    notes = list(dict.fromkeys(note for entry in shown for note in entry.notes))
    starts = list(dict.fromkeys(_start(entry) for entry in shown if _start(entry)))
    start = starts[0] if len(starts) == 1 else ""
    rows = [
        {
            "setting": html.escape(entry.setting),
            "epochs": entry.epochs,
            "paper": _breakable(entry.paper),
            "here": _here(entry),
            "hours": html.escape(entry.hours),
            "type": _command(entry, start),
            "notes": ", ".join(str(notes.index(note) + 1) for note in entry.notes),
        }
        for entry in shown
    ]
    frame = pd.DataFrame(rows)
    frame = frame[[name for name in frame if frame[name].any()]].rename(columns={"type": PRESET} if start else {})
    table = frame.to_html(index=False, border=0, justify="left", escape=False)
    told = f"<p>To repeat a row: <code>{html.escape(start)} {PRESET}</code></p>" if start else ""
    listed = "".join(f"<li>{marked(note)}</li>" for note in notes)
    return HTML(f'<div class="wide">{told}{table}<ol>{listed}</ol></div>')


def _start(entry: Entry) -> str:
    """The command that trains a preset, without the preset; empty where the entry is none that is trained."""
    return entry.command.rpartition(" ")[0] if " -p variant " in entry.command else ""


def _command(entry: Entry, start: str) -> str:
    """What to type; where all presets share the beginning of their command, the preset alone."""
    alone = start and _start(entry) == start
    text = entry.command.rpartition(" ")[2] if alone else entry.command
    return f"<code>{html.escape(text)}</code>" if text else ""


def _here(entry: Entry) -> str:
    """Our number and the verdict."""
    text = _breakable(html.escape(entry.here).replace(NOT_RUN, NOT_RUN.replace(" ", aggregate.BLANK)))
    return f"{text} {({DISAGREES: f'<strong>{DISAGREES}</strong>'}).get(entry.verdict, entry.verdict)}"


def _breakable(text: str) -> str:
    """Text that may be broken behind the bars between splits."""
    return text.replace("|", "|<wbr>")


def marked(note: str) -> str:
    """A note as HTML, what stands between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(note))


def _entry(row: dict[str, str], runs: pd.DataFrame, device: str) -> Entry:
    again = paper_numbers.repeat(row["repeat"])
    here, verdict = _measured(row, again, runs)
    notes = [row["note"]] if row["note"] else []
    if again.kind == "train":
        notes += presets.describe(again.dataset, again.name).notes
    return Entry(
        experiment=row["experiment"],
        table=row["table"],
        dataset=row["dataset"],
        setting=row["setting"],
        epochs=f"{int(row['epochs']):,}" if row["epochs"] else "",
        paper=row["value"],
        here=here,
        verdict=verdict,
        hours=_hours(again, runs, device),
        command=again.command,
        notes=tuple(_sentence(note) for note in notes),
    )


def _measured(row: dict[str, str], again: Repeat, runs: pd.DataFrame) -> tuple[str, str]:
    """Our number with its runs, and the verdict."""
    if again.kind == "check":
        card = datasets.get(again.dataset)
        held = card.splits if row["setting"] == "splits" else card.counts
        here = "|".join(str(held[split]) for split in datasets.SPLITS)
        return here, AGREES if here == row["value"] else DISAGREES
    if again.kind != "train":
        return (NOT_RUN if again.kind == "judge" else ""), ""
    # the paper names no precision, so that networks in either repeat its row
    found = matching.of_recipe(runs, recipes.get(again.dataset, again.name), dtype=lambda name: True)
    if found.empty:
        return NOT_RUN, ""
    percent = 100 * found["test_top1"]
    who = ", ".join(sorted(found["run_id"]))
    return f"{aggregate.mean_spread(percent, 2)} (n = {len(found)}: {who})", _verdict(percent.mean(), row["value"])


def _verdict(mean: float, value: str) -> str:
    try:
        reported = float(value.lstrip("~"))
    except ValueError:  # the paper's run failed
        return ""
    return AGREES if abs(mean - reported) <= TOLERANCE else DISAGREES


def _hours(again: Repeat, runs: pd.DataFrame, device: str) -> str:
    if again.kind == "train":
        return preset_table.hours(budget.budget(recipes.get(again.dataset, again.name), device, runs))
    if again.kind == "judge":
        return preset_table.hours(budget.judging(again.name, again.dataset, device))
    return ""


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"

"""What a study measured, as plain text: `distill records fashion_quick`."""

from __future__ import annotations

from distill_lib import records
from distill_lib.errors import unknown
from distill_lib.report import aggregate


def summarise(study: str, *, mock: bool = False) -> str:
    """The table of a study and where it comes from; runs that replayed stored answers are left out.

    Args:
        study: name of a folder in the results folder, such as "fashion_quick".
        mock: whether runs on made-up data are included.

    Raises:
        DistillError: if there are no such runs, or a record is damaged.
    """
    frame = records.read(mock=mock)
    if study not in set(frame["study"]):
        raise unknown("study", study, sorted(set(frame["study"])))
    frame = aggregate.live(frame[frame["study"] == study])
    table = aggregate.results_table(frame).to_string(index=False)
    return f"{table}\n\n{records.provenance(frame)}"


def studies() -> str:
    """The studies that there are records of, each with how many runs it has, as lines of text.

    Raises:
        DistillError: if a record is damaged.
    """
    counts = records.read()["study"].value_counts().sort_index()
    width = max(map(len, counts.index), default=0)
    lines = [f"{study:<{width}}  {count} run{'s' if count > 1 else ''}" for study, count in counts.items()]
    return "\n".join(lines) or f"no runs in {records.find_results()}"

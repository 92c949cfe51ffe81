"""What a study measured, as plain text: `python -m distill_lib.report.summary fashion_quick`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from distill_lib import records
from distill_lib.errors import command_line, unknown
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


@command_line
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m distill_lib.report.summary", description="Print what a study measured."
    )
    parser.add_argument("study", help="a folder of results/, such as fashion_quick")
    study = parser.parse_args(arguments).study
    print(summarise(study, mock=study.endswith("_smoke")))


if __name__ == "__main__":
    sys.exit(main())

"""What it takes to repeat an experiment: the command, the students, and the time that records or operations tell."""

import math

import pandas as pd

from distill_lib import experiments, views
from distill_lib.experiments import PRETRAINED, matching
from distill_lib.report import aggregate, cost

EMBEDDED = "fashion"
SEEDS = (0, 1, 2)  # of the embedded set; the paper's own runs have one


def command(name: str, dataset: str) -> str:
    """What to type to train all settings anew: on the paper's sets with one seed, else into a folder of its own."""
    options = "" if dataset == EMBEDDED else ' -p seeds "[0]"'
    if name == "imagenet":
        options = f" -p variant imagenet{options}"
    if (name, dataset) == ("consistency", EMBEDDED):
        options = f' -p variant medium -p policies "[{", ".join(views.POLICIES)}]" -p seeds "{[*SEEDS]}"'
    return f"nox -s run -- {name} -p dataset {dataset}{options}{' -p results again' if dataset == EMBEDDED else ''}"


def how_to_repeat(runs: pd.DataFrame, name: str) -> str:
    """How to repeat an experiment on the embedded set and what that takes, in Markdown."""
    students, absent, minutes, devices = _embedded(runs, name)
    text = f"To repeat it: `{command(name, EMBEDDED)}`. That is {students} students"
    if not devices:
        return f"{text}; there are no records yet that say how long they take."
    rest = f", without {absent} of them, of which there are no records yet" if absent else ""
    return f"{text}, and took {minutes} on {', '.join(devices)}{rest}."


def table(runs: pd.DataFrame, device: str = cost.DEVICE, dataset: str | None = None) -> pd.DataFrame:
    """Every experiment on every data set, or on this one, as text; the hours of the paper's sets are of `device`."""
    rows = []
    for name, experiment in experiments.EXPERIMENTS.items():
        for each in [each for each in experiment.settings if dataset in (None, each)]:
            if each == EMBEDDED:
                students, _, time, _ = _embedded(runs, name)
            else:  # each student by itself
                plan = experiments.plan(name, each, start=PRETRAINED)
                hours = [cost.of_recipe(recipe, device, runs).hours for recipe in plan]
                total = math.fsum(math.nan if known is None else known for known in hours)
                time = "unknown" if math.isnan(total) else f"{total:,.{0 if total >= 10 else 1}f} hours"
                students = len(plan)
            row = {"experiment": experiment.title, "data": each, "students": f"{students:,}", "time": time}
            rows.append(row | {"type": f"`{command(name, each)}`"})
    return pd.DataFrame(rows)


def _embedded(runs: pd.DataFrame, name: str) -> tuple[int, int, str, list[str]]:
    """Students of an experiment on the embedded set, how many have no record, minutes of the others, and devices."""
    own = [matching.of_recipe(runs, recipe) for recipe in experiments.plan(name, EMBEDDED, start=PRETRAINED)]
    absent = sum(len(set(SEEDS) - set(rows["seed"])) for rows in own)
    devices = sorted({device for rows in own if len(rows) for device in rows["device"]})
    # the median, because one that was put to sleep tells nothing
    seconds = [aggregate.own_seconds(rows).median() for rows in own if len(rows)]
    minutes = f"{len(SEEDS) * sum(seconds) / 60:,.0f}{'+' if absent else ''} minutes" if seconds else "unknown"
    return len(SEEDS) * len(own), absent, minutes, devices

"""Figures of runs: every one with all records, with few, and with none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from distill_lib import cli, records, views
from distill_lib.figures import runs as figure_runs
from distill_lib.figures import style
from distill_lib.report import aggregate

PAPER = pd.DataFrame(
    {
        "policy": ["same/ic", "mix", "same/ic", "mix", "teacher"],
        "name": ["consistent", "matching", "consistent", "matching", "the teacher"],
        "epochs": [30.0, 30.0, 300.0, 300.0, np.nan],
        "test_top1": [0.7, 0.6, 0.8, 0.82, 0.83],
    }
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    made_up.write_everything(root)
    return root


@pytest.fixture(scope="module")
def runs(results: Path) -> pd.DataFrame:
    return records.read(results)


def figures(runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Every figure of runs, as the book calls it."""
    study, fresh = aggregate.study(runs), aggregate.study(runs, [aggregate.FRESH])
    teacher = aggregate.teacher_top1(runs)
    yield "patience", figure_runs.patience(study, fresh, teacher)
    yield "paper_and_study", figure_runs.paper_and_study(PAPER, study, teacher)
    yield "gaps", figure_runs.gaps(PAPER[PAPER["policy"] != "teacher"], study)
    yield "accuracy", figure_runs.accuracy(fresh, "policy")


def texts(figure: Figure) -> list[str]:
    """All words of a figure, where they are drawn."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_every_figure_draws_with_all_records(runs: pd.DataFrame) -> None:
    """It shows itself as SVG, the same bytes whenever it is made, and says nothing of missing records."""
    for (name, figure), (_, again) in zip(figures(runs), figures(runs), strict=True):
        assert isinstance(figure, style.Picture) and isinstance(again, style.Picture), name
        drawn = figure._repr_svg_()
        assert drawn.startswith("<?xml") and drawn == again._repr_svg_(), name
        assert records.NOTHING not in texts(figure), name


@pytest.mark.filterwarnings("error")
def test_every_figure_says_when_there_are_no_records(tmp_path: Path) -> None:
    """No figure fails, and each names what is missing."""
    for name, figure in figures(records.read(tmp_path)):
        assert records.NOTHING in texts(figure), name
        figure._repr_svg_()


def test_every_figure_draws_one_run(tmp_path: Path) -> None:
    """One seed, one length, one policy is enough for a picture."""
    made_up.write_run(tmp_path, "short", "same/ic", 0)
    for _, figure in figures(records.read(tmp_path)):
        figure._repr_svg_()


def test_patience_draws_means_runs_and_the_teacher(runs: pd.DataFrame) -> None:
    """The line goes through the means in percent; each run is a dot; fresh runs and the teacher are there."""
    study, fresh = aggregate.study(runs), aggregate.study(runs, [aggregate.FRESH])
    (axes,) = figure_runs.patience(study, fresh, 0.9).axes
    lines = {line.get_color(): line for line in axes.lines if line.get_linestyle() == "-"}
    means = aggregate.summary(study[study["policy"] == "mix"])
    np.testing.assert_allclose(lines[style.COLOURS["mix"]].get_ydata(), 100 * means["mean"])
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert sum(len(line.get_xdata()) for line in dots) == len(study)
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == len(fresh)
    assert any(set(line.get_ydata()) == {90.0} for line in axes.lines)
    assert "the teacher" in texts(axes.figure)


def test_a_length_that_is_not_in_the_presets_is_drawn(tmp_path: Path) -> None:
    """Lengths are read from the records."""
    made_up.write_run(tmp_path, "long", "mix", 0, epochs=77)
    figure = figure_runs.patience(aggregate.study(records.read(tmp_path)))
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["77"]


def test_the_papers_names_are_used_for_the_papers_numbers() -> None:
    """A table may name its policies."""
    figure = figure_runs.paper_and_study(PAPER, PAPER.iloc[:0])
    assert {"consistent", "matching", "the teacher"} <= set(texts(figure))
    assert records.NOTHING in texts(figure)


def test_training_curve_of_a_run() -> None:
    rows = [{"epoch": 1.0, "loss": 0.5, "validation_top1": 0.6}, {"epoch": 2.0, "loss": 0.4, "validation_top1": 0.7}]
    left, right = figure_runs.training_curve(rows).axes
    assert left.get_yscale() == "log"
    np.testing.assert_allclose(right.lines[0].get_ydata(), [60, 70])


def test_each_policy_has_a_colour_and_a_marker_of_its_own() -> None:
    for table in (style.COLOURS, style.MARKERS):
        assert set(table) == set(views.POLICIES | views.BASELINES)
        assert len(set(table.values())) == len(table)


def test_words_are_as_dark_as_white_paper_needs() -> None:
    """#767676 is the lightest grey that WCAG's contrast of 4.5 allows on white."""
    assert style.readable("#767676") == "#767676" and style.readable("#222222") == "#222222"
    assert style.readable("#777777") < "#777777" and style.readable("#ffffff") < "#777777"
    hues = [style.readable(colour) for colour in style.COLOURS.values()]
    assert hues == [style.readable(hue) for hue in hues]


def test_labels_at_the_ends_do_not_overlap(runs: pd.DataFrame) -> None:
    """The boxes of the names are apart, and stay beside the panel."""
    figure = figure_runs.patience(aggregate.study(runs))
    figure.draw_without_rendering()
    boxes = sorted(
        (text.get_window_extent() for text in figure.axes[0].texts if text.get_text()), key=lambda box: box.y0
    )
    assert len(boxes) == len(made_up.POLICIES)
    assert all(upper.y0 > lower.y0 + 0.6 * lower.height for lower, upper in itertools.pairwise(boxes))
    assert boxes[-1].y1 < figure.bbox.y1


def test_figures_do_not_change_matplotlibs_settings(runs: pd.DataFrame) -> None:
    """The style is gone after the call."""
    import matplotlib

    before = dict(matplotlib.rcParams)
    figure_runs.patience(aggregate.study(runs))
    assert dict(matplotlib.rcParams) == before


def test_the_command_saves_the_first_figure(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """And says in one line what is wrong where it cannot."""
    monkeypatch.setenv("DISTILL_RESULTS", str(results))
    target = tmp_path / "new" / "figure.png"
    assert cli.main(["records", "--figure", str(target)]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["records", "--figure", str(tmp_path / "figure.nonsense")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_setting_far_below_all_others_is_a_number() -> None:
    """So that it does not squeeze the others; among few nothing is far."""
    means = {"a": 0.80, "b": 0.81, "c": 0.82, "d": 0.83, "e": 0.40}
    rows = [
        {"setting": setting, "policy": "mix", "test_top1": mean + shift}
        for setting, mean in means.items()
        for shift in (0, 0.01)
    ]
    frame = pd.DataFrame(rows)
    figure = figure_runs.accuracy(frame)
    assert [text.rpartition(" ")[2] for text in texts(figure)] == ["40.5"]
    assert figure.axes[0].get_xlim()[0] > 75
    few = figure_runs.accuracy(frame[frame["setting"].isin(["a", "b", "e"])])
    assert texts(few) == [] and few.axes[0].get_xlim()[0] < 40

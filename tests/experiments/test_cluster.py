"""Runs on many workers: all of them end with the right records, whoever is lost on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import tiny

from distill_lib import records, train
from distill_lib.errors import DistillError
from distill_lib.experiments import cluster

pytestmark = pytest.mark.usefixtures("tiny_models")

PARAMETERS = 'teacher = ""\nseed = 0\nepochs = 3\nseeds = [0]'
RUN = """
import psutil
import tiny
from distill_lib import records, train
tiny.register()
for process in psutil.Process().parents():  # among them the worker
    worker = records.find_results() / "workers" / f"{process.pid}"
    worker.mkdir(parents=True, exist_ok=True)
    (worker / f"{seed}").touch()
run = train.fit(tiny.recipe(teacher, seed=seed, epochs=epochs), checkpoint_seconds=0)
print("resumed", run.record["resumed"])
"""


@pytest.fixture
def notebook(programs_of_children: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook that trains the tiny student; its records go to a folder of their own."""
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(RUN)]
    path = tmp_path / "tiny_run.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    library = [str(Path(__file__).parents[1]), str(Path(cluster.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(library))
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path / "results"))
    return path


@pytest.fixture
def workers(notebook: Path, tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address of a scheduler, and the processes of three workers that nobody starts again."""
    distributed = pytest.importorskip("distributed", reason="the extra distill_lib[sweep] is not installed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as scheduler:
        address = scheduler.scheduler_address
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
        started = [
            subprocess.Popen(
                [*command, "--no-dashboard", "--local-directory", str(tmp_path)], stderr=subprocess.DEVNULL
            )
            for _ in range(3)
        ]
        yield address, started
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")  # of Dask's own connections
def test_four_runs_on_three_workers_of_which_two_are_killed(
    notebook: Path, workers: tuple[str, list[subprocess.Popen]], teacher: Path, tmp_path: Path
) -> None:
    """The runs of lost workers go on elsewhere from their checkpoints, and all records are those of runs at home."""
    address, (one, other, _) = workers
    planned = cluster.jobs(str(notebook), {"teacher": str(teacher), "seed": [*range(4)], "epochs": 30})
    killer = subprocess.Popen([sys.executable, "-c", KILLER, str(tmp_path / "results"), str(one.pid), str(other.pid)])
    table = cluster.sweep(planned, address)
    assert killer.wait(timeout=60) == 0
    assert table.count("done") == 4 and one.wait() == other.wait() == -9
    resumed = 0
    for seed in range(4):
        (folder,) = (tmp_path / "results" / "fashion_smoke").glob(f"*seed{seed}_*")
        record = records.load(folder)
        at_home = train.fit(tiny.recipe(teacher, seed=seed, epochs=30), tmp_path / "home").record
        assert record is not None and record["result"] == at_home["result"]
        resumed += record["resumed"]
    assert resumed >= 1
    began = planned[0].log.stat().st_size
    assert cluster.sweep(planned[:1], address).startswith("done")  # the same again is reused
    assert "reused, finished on" in planned[0].log.read_text()[began:]


# Each worker in the middle of a run: one of its runs has a checkpoint, which a finished one has not.
KILLER = """
import os, pathlib, signal, sys, time
results, *workers = sys.argv[1:]
results = pathlib.Path(results)
for worker in workers:
    begun = lambda: [seed.name for seed in (results / "workers").glob(f"{worker}/*")]
    while not any(list(results.glob(f"fashion_smoke/*seed{seed}_*/checkpoint.npz")) for seed in begun()):
        time.sleep(0.005)
    os.kill(int(worker), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_run_that_fails_is_told_with_its_reason_and_its_log(notebook: Path, teacher: Path, tmp_path: Path) -> None:
    """The others are done; the table names the failure; workers of this machine need no scheduler."""
    pytest.importorskip("distributed", reason="the extra distill_lib[sweep] is not installed")
    planned = cluster.jobs(str(notebook), {"teacher": [str(tmp_path / "none.npz"), str(teacher)]})
    with pytest.raises(DistillError, match="1 of 2 runs failed") as error:
        cluster.sweep(planned)
    failed, done = str(error.value).splitlines()[1:]
    assert failed.startswith("no checkpoint at") and failed.endswith(str(planned[0].log))
    assert done.startswith("done") and "resumed 0" in planned[1].log.read_text()


def test_lists_are_runs_for_parameters_that_are_none(notebook: Path) -> None:
    """A list varies a number; a list of lists varies a list; a list for a list stays one run."""
    planned = cluster.jobs(str(notebook), {"seed": [1, 2], "epochs": 3, "seeds": [[0], [1, 2]]})
    assert [job.name for job in planned] == [
        "000_seed-1_seeds-_0",
        "001_seed-1_seeds-_1_2",
        "002_seed-2_seeds-_0",
        "003_seed-2_seeds-_1_2",
    ]
    assert planned[1].words[-6:] == ("-p", "epochs", "3", "-p", "seeds", "[1, 2]")
    (job,) = cluster.jobs(str(notebook), {"seeds": [0, 1]}, "tensorboard")
    assert job.words[-2:] == ("--log", "tensorboard")


@pytest.mark.parametrize(
    ("parameters", "message"), [({"sed": 1}, "Did you mean 'seed'"), ({"seed": []}, "nothing to run")]
)
def test_what_cannot_be_run_is_told_before_anything_starts(notebook: Path, parameters: dict, message: str) -> None:
    """An unknown parameter, and no values."""
    with pytest.raises(DistillError, match=message):
        cluster.jobs(str(notebook), parameters)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_scheduler_that_is_not_there_is_told(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line that says how one is started."""
    distributed = pytest.importorskip("distributed", reason="the extra distill_lib[sweep] is not installed")

    def absent(*_: object, **__: object) -> None:
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", absent)
    with pytest.raises(DistillError, match="no Dask scheduler at tcp://nowhere:1 .* `dask scheduler`"):
        cluster.sweep(cluster.jobs(str(notebook), {}), "tcp://nowhere:1")

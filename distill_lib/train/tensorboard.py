"""A run's metrics as curves in TensorBoard: `distill run NOTEBOOK --log tensorboard`, or DISTILL_LOG=tensorboard.

They lie in results/tensorboard/STUDY/RUN, where `tensorboard --logdir results/tensorboard` finds them, and are there to
watch runs alone: no record and no figure is made of them.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill_lib.errors import DistillError, logger, unknown
from distill_lib.records import Row
from distill_lib.train import processes

VARIABLE, NAME = "DISTILL_LOG", "tensorboard"


def wanted() -> bool:
    """Whether there are to be curves; DistillError for another word, or if the package that writes them is missing."""
    if not (word := os.environ.get(VARIABLE)):
        return False
    if word != NAME:
        raise unknown(VARIABLE, word, [NAME])
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError as error:
        raise DistillError(f"{VARIABLE} needs tensorboardX: pip install 'distill_lib[tensorboard]'.") from error
    return True


class Curves:
    """Those of one run, if they are wanted; `rows` are what it has reported, so what is drawn beyond them is void."""

    def __init__(self, directory: Path, rows: list[Row]) -> None:
        self._wanted, self._done = processes.first() and wanted(), 0
        self._file: Any = None
        self._folder = directory.parents[1] / NAME / directory.parent.name / directory.name
        if self._folder.exists():
            self._done = rows[-1]["step"] if rows else 0
        else:  # an earlier process drew none
            self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Draws rows of metrics.csv; what cannot be written is told, and the run goes on."""
        if not self._wanted:
            return
        from tensorboardX.proto import event_pb2, summary_pb2

        try:
            for row in rows:
                tags = {_tag(name): value for name, value in row.items() if name != "step" and value != ""}
                values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in tags.items()]
                self._write(event_pb2.Event(step=row["step"], summary=summary_pb2.Summary(value=values)))
                self._done = row["step"]
        except OSError as error:
            self.close()
            logger.warning("%s cannot be written (%s): it lacks a point.", self._folder, error.strerror or error)

    def _write(self, event: Any) -> None:
        # SummaryWriter writes in a thread that ends when the disk is full; once its queue is, training waits for ever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(self._folder / "events"), f".{os.getpid()}.{time.time_ns()}")
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(step=self._done + 1, session_log=start))
        event.wall_time = time.time()
        self._file.write_event(event)
        self._file.flush()

    def close(self) -> None:
        """Ends the file; a later row begins another."""
        file, self._file = self._file, None
        if file:
            with contextlib.suppress(OSError):
                file.close()


def _tag(name: str) -> str:
    """TensorBoard has a section for what stands before the stroke."""
    return f"validation/{name.removeprefix('validation_')}" if name.startswith("validation_") else f"training/{name}"

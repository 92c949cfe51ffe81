"""Progress of a run: a bar at a terminal, plain lines in logs and notebooks."""

import time

from tqdm import tqdm

from distill_lib.errors import logger


class Progress:
    """Says how far a run is: steps, images/s, loss, time left."""

    def __init__(self, label: str, total_steps: int, batch_size: int, start_step: int = 0) -> None:
        self._label, self._total, self._batch_size, self._start = label, total_steps, batch_size, start_step
        self._began = time.perf_counter()
        self._bar = tqdm(total=total_steps, initial=start_step, desc=label, unit="step", disable=None)  # but in logs

    def report(self, step: int, loss: float | None = None) -> None:
        """Reports that `step` steps are done, and the mean loss since the last report, if something is learnt."""
        elapsed = time.perf_counter() - self._began
        rate = (step - self._start) / max(elapsed, 1e-9)
        if not self._bar.disable:
            self._bar.update(step - self._bar.n)
            learnt = {} if loss is None else {"loss": f"{loss:.4f}"}
            self._bar.set_postfix(learnt | {"images_per_s": f"{rate * self._batch_size:.0f}"})
            return
        left = (self._total - step) / max(rate, 1e-9)
        logger.info(
            f"{self._label}: step {step}/{self._total}, {rate * self._batch_size:.0f} images/s, "
            f"{'' if loss is None else f'loss {loss:.4f}, '}{left:.0f} s left"
        )

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

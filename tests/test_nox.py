"""What `nox` starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_what_nox_started_ends_with_it() -> None:
    """Killed alone, it leaves nothing that trains on unseen."""
    script = (
        "import os, sys, types, unittest.mock; sys.modules['nox'] = unittest.mock.MagicMock(); import noxfile; "
        "child = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'; "
        "noxfile.execute(types.SimpleNamespace(log=id), sys.executable, '-c', child)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as nox:
        assert nox.stdout is not None
        pid = int(nox.stdout.readline())
        os.kill(pid, 0)
        nox.kill()
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it is still there")

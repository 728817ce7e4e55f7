from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import psutil


def test_the_demo_shows_a_recovery_a_failure_their_audit_rows_and_leaves_nothing(
    tmp_path: Path, techdeck: Callable[..., CompletedProcess[str]]
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    demo = techdeck("demo", timeout_s=110, TMPDIR=str(temporary))

    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    assert "load recovered from SERVICE_UNAVAILABLE" in demo.stdout
    assert "validate failed VALIDATION_ERROR" in demo.stdout
    assert "attempt 1  retry" in demo.stdout
    assert "attempt 1  failed" in demo.stdout
    assert "a patient's address, in PostgreSQL and Redis: nowhere" in demo.stdout
    assert "0 findings" in demo.stdout
    assert not list(temporary.iterdir())
    assert not [process for process in psutil.process_iter() if _works_in(process, temporary)]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(folder))
    except psutil.Error:
        return False

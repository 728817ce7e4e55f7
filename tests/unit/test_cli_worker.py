"""How a worker process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS, CHECKPOINT_PRIVATE_KEYS, generate_keys

BROKEN_WORKER = """
import typer
from celery import Celery, bootsteps
from techdeck_tasks.cli.worker import run_worker

class Broken(bootsteps.StartStopStep):
    def start(self, parent):
        raise OSError("no disk")

app = Celery("lab", broker="memory://")
app.steps["worker"].add(Broken)
try:
    run_worker(app, "--pool", "solo")
except typer.Exit as end:
    raise SystemExit(end.exit_code)
"""


def python(*arguments: str, folder: Path) -> CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PATH": "", "C_FORCE_ROOT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_worker_that_ends_by_an_error_says_so_to_its_supervisor(tmp_path: Path) -> None:
    ended = python("-c", BROKEN_WORKER, folder=tmp_path)

    assert "no disk" in ended.stderr
    assert ended.returncode == 1, ended.stderr


@pytest.mark.parametrize(
    ("kind", "folder", "name"),
    [("pipeline", "producer", AUDIT_PUBLIC_KEYS), ("audit", "signer", CHECKPOINT_PRIVATE_KEYS)],
)
def test_a_worker_without_a_key_that_it_needs_does_not_start(
    tmp_path: Path, kind: str, folder: str, name: str
) -> None:
    keys = tmp_path / ".techdeck" / "keys"
    generate_keys(keys / "producer", keys / "reader", keys / "signer")
    (keys / folder / name).unlink()

    ended = python("-m", "techdeck_tasks", "worker", kind, folder=tmp_path)

    assert ended.returncode == 2
    assert f"{name} is missing; make one with 'techdeck keys generate'" in ended.stderr
    assert ended.stderr.count("\n") == 1

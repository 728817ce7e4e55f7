"""What libraries are told by the environment of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from techdeck_tasks.process import set_defaults, share_cores


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REMAP_SIGTERM", "POLARS_THP", "_RJEM_MALLOC_CONF", "POLARS_MAX_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)


def test_sigterm_is_the_soft_shutdown_and_polars_keeps_its_memory_for_a_while() -> None:
    set_defaults()
    assert os.environ["REMAP_SIGTERM"] == "SIGQUIT"
    assert os.environ["POLARS_THP"] == "1"


def test_what_an_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_THP", "0")
    monkeypatch.setenv("POLARS_MAX_THREADS", "7")
    set_defaults()
    share_cores(2)
    assert (os.environ["POLARS_THP"], os.environ["POLARS_MAX_THREADS"]) == ("0", "7")


def test_each_child_computes_with_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    share_cores(3)
    assert os.environ["POLARS_MAX_THREADS"] == "2"


def test_more_children_than_cores_compute_with_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    share_cores(16)
    assert os.environ["POLARS_MAX_THREADS"] == "1"


@pytest.mark.parametrize("module", ["techdeck_tasks.process", "techdeck_tasks.cli"])
def test_polars_is_not_imported_before_it_can_be_told(module: str) -> None:
    program = f"import {module}, sys; sys.exit('polars' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", program), check=False).returncode == 0


def test_a_worker_imports_what_stages_need_before_it_forks_and_a_client_never(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from techdeck_tasks.celeryconfig import Role\n"
        "from techdeck_tasks.runtime import create_app\n"
        "app = create_app(role=Role.PIPELINE)\n"
        "needed = {'pandera', 'hypothesis', 'fairlearn'}\n"
        "assert not needed & set(sys.modules)\n"
        "app.loader.init_worker()\n"
        "assert needed <= set(sys.modules)\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", program), cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")

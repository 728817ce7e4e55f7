"""The example of docs/testing.md, run as its reader runs it: a fresh pytest in a folder without services."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from techdeck_tasks.settings import ENV_PREFIX

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "docs" / "examples" / "testing"

OFFLINE = """
import sys, time

def refuse(event, args):
    if event in {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"}:
        raise AssertionError(f"{event} {args[1:]}: a test without servers opened a socket")

def wait(seconds):
    raise AssertionError(f"a test without servers waited for {seconds} s")

sys.addaudithook(refuse)
time.sleep = wait
"""

BOTH = """
import socket
import pytest

from techdeck_tasks.settings import ENV_PREFIX

def test_celery_s_own_fixtures_work_beside_ours(celery_app, techdeck):
    @celery_app.task(name="plain", shared=False)
    def plain():
        return 1

    assert celery_app is not techdeck.app
    assert plain.apply().get() == 1

def test_the_guard_of_this_process_works():
    with pytest.raises(AssertionError, match="opened a socket"):
        socket.create_connection(("127.0.0.1", 1))
"""

RunPytest = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_pytest(tmp_path: Path) -> RunPytest:
    """Run pytest in a project of its own, with this package installed as pyproject.toml says."""
    points = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = tmp_path / "installed" / "techdeck_plugin-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: techdeck-plugin\nVersion: 0\n")
    lines = [f"{name} = {target}" for name, target in points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    (installed.parent / "offline.py").write_text(OFFLINE)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "offline", "-p", "no:cacheprovider", "-ra", *arguments],
            cwd=project,
            env={**inherited, "PYTHONPATH": f"{REPOSITORY}:{installed.parent}:{project}"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.fixture
def project(tmp_path: Path, run_pytest: RunPytest) -> Path:
    folder = tmp_path / "project"
    for source in EXAMPLE.glob("*.py"):
        shutil.copy(source, folder)
    return folder


def passed(run: subprocess.CompletedProcess[str]) -> int:
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
    found = re.search(r"^=* ?(\d+) passed in", run.stdout, re.MULTILINE)
    assert found, run.stdout
    return int(found[1])


@pytest.mark.parametrize(
    "plugins",
    [
        pytest.param((), id="with pytest-celery"),
        pytest.param(("-p", "celery.contrib.pytest"), id="with both of Celery's plugins"),
        pytest.param(
            ("-p", "celery.contrib.pytest", "-p", "no:pytest_celery"), id="with celery.contrib.pytest"
        ),
    ],
)
def test_the_example_passes_without_a_socket_or_a_wait(
    run_pytest: RunPytest, project: Path, plugins: tuple[str, ...]
) -> None:
    tests = len(re.findall(r"^def test_", (project / "test_lab.py").read_text(), re.MULTILINE))
    (project / "test_both.py").write_text(BOTH)

    assert passed(run_pytest(*plugins)) == tests + 2


def test_a_failed_assertion_shows_what_is_on_record(run_pytest: RunPytest, project: Path) -> None:
    (project / "test_lab.py").write_text(
        "import lab\n"
        "def test_it(techdeck):\n"
        "    techdeck.faults.inject(lab.fetch_results, ConnectionError('refused'))\n"
        "    techdeck.assert_retried(lab.fetch_results.delay('order-1'), times=2)\n"
    )

    run = run_pytest()

    assert run.returncode == 1
    assert "was to be retried 2 x and was 1 x" in run.stdout
    assert "CONNECTION_ERROR       lab.fetch_results attempt=0 service=laboratory: refused" in run.stdout
    assert "testbed.py" not in run.stdout


def test_the_plugin_can_be_switched_off(run_pytest: RunPytest, tmp_path: Path) -> None:
    (tmp_path / "project" / "test_plain.py").write_text("def test_it(techdeck):\n    pass\n")

    run = run_pytest("-p", "no:techdeck_tasks.testing.plugin")

    assert run.returncode == 1
    assert "fixture 'techdeck' not found" in run.stdout


def test_nothing_is_imported_before_a_fixture_is_used(
    run_pytest: RunPytest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "project" / "test_plain.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    ours = {name for name in sys.modules if name.startswith('techdeck_tasks')}\n"
        "    assert ours == {'techdeck_tasks', 'techdeck_tasks.testing', 'techdeck_tasks.testing.plugin'}\n"
        "    assert not {'celery', 'polars', 'sqlalchemy', 'redis'} & set(sys.modules)\n"
    )

    assert passed(run_pytest("-p", "techdeck_tasks.testing.plugin")) == 1


def test_the_document_shows_the_example_as_it_is_run() -> None:
    document = (REPOSITORY / "docs" / "testing.md").read_text()
    for source in EXAMPLE.glob("*.py"):
        assert f"```python\n# {source.name}\n{source.read_text()}```" in document, source.name

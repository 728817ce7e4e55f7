"""Modules of the user's own, which register stages and alert conditions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from techdeck_tasks.devservices.stack import setting_line
from techdeck_tasks.runtime import import_own_modules, install
from techdeck_tasks.settings import Settings, SettingsError, load_settings


def test_a_module_in_the_working_directory_brings_its_stages(tmp_path: Path) -> None:
    (tmp_path / "own_stages.py").write_text(
        "from techdeck_tasks.pipeline.registry import StageParams, StageResult, stage\n"
        "@stage('own', params=StageParams, summary='does nothing')\n"
        "def nothing(context, params):\n"
        "    return StageResult(context.input())\n"
    )
    listed = subprocess.run(
        [sys.executable, "-m", "techdeck_tasks", "stages", "own", "--json"],
        cwd=tmp_path,
        env={**os.environ, "TECHDECK_IMPORTS": '["own_stages"]'},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "does nothing" in listed.stdout, listed.stderr


def test_a_module_that_cannot_be_imported_is_named_with_the_reason() -> None:
    with pytest.raises(
        SettingsError, match=r"TECHDECK_IMPORTS: 'no_such_module' cannot be imported from .*No module"
    ):
        import_own_modules(load_settings(imports=("no_such_module",)))


def test_an_application_may_have_a_queue_of_its_own() -> None:
    app = Celery("lab", set_as_current=False)
    install(app, load_settings(), queue="lab")
    assert app.conf.task_default_queue == "lab"
    assert [queue.name for queue in app.conf.task_queues] == ["lab"]


@pytest.mark.parametrize("value", ['["clinic"]', r"a'b\c", "with # and = and spaces"])
def test_the_settings_file_of_techdeck_up_gives_every_value_back(tmp_path: Path, value: str) -> None:
    file = tmp_path / "techdeck.env"
    file.write_text(setting_line("artifact_url", value))
    assert Settings(_env_file=file).artifact_url == value

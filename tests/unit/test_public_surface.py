from __future__ import annotations

import subprocess
import sys

import pytest

import techdeck_tasks


@pytest.mark.parametrize("name", techdeck_tasks.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(techdeck_tasks, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        techdeck_tasks.nonsense  # noqa: B018 - the access is the test


def test_the_errors_alone_import_neither_polars_nor_sqlalchemy_nor_celery() -> None:
    program = (
        "import sys, techdeck_tasks.errors;"
        "print(sorted({'polars', 'sqlalchemy', 'celery', 'redis'} & set(sys.modules)))"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"


def test_importing_everything_connects_to_nothing_and_reads_no_settings() -> None:
    program = (
        "import socket, techdeck_tasks.cli, techdeck_tasks.runtime;"
        "from techdeck_tasks import pipeline_execute, create_app;"
        "create_app(); print('no connection was made')"
    )
    guarded = f"import socket; socket.socket.connect = None; socket.create_connection = None; {program}"

    shown = subprocess.run([sys.executable, "-c", guarded], capture_output=True, text=True, check=True)

    assert "no connection was made" in shown.stdout

"""Applications without any server."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.runtime import install
from techdeck_tasks.settings import Settings, load_settings

NOBODY = "redis://127.0.0.1:1/0"
"""A port that refuses."""


@pytest.fixture
def lone_settings(tmp_path: Path) -> Settings:
    settings = load_settings(
        redis_url=NOBODY,
        keys_dir=tmp_path / "producer",
        reader_keys_dir=tmp_path / "reader",
        signing_keys_dir=tmp_path / "signer",
        audit_spool_dir=tmp_path / "spool",
        connection_reset_delay_seconds=0,
    )
    generate_keys(settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir)
    return settings


@pytest.fixture
def app(lone_settings: Settings) -> Celery:
    """An installed application in eager mode; its errors go to the spool."""
    app = Celery("unit", set_as_current=False)
    install(app, lone_settings)
    app.conf.task_always_eager = True
    return app

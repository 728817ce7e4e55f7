from __future__ import annotations

import os
from hashlib import sha256

import pytest

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.errors import FileUploadError
from techdeck_tasks.errors import TimeoutError as TechDeckTimeoutError
from techdeck_tasks.pipeline.upkeep import COLLECT
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"upload_dir": settings.audit_spool_dir.parent / "uploads"})


def test_an_error_of_an_upload_removes_what_was_stored_and_is_told_to_the_client(runtime: Runtime) -> None:
    upload = runtime.uploads.begin("a.csv", 10, sha256(b"").hexdigest())
    runtime.uploads.put_chunk(upload.upload_id, 0, b"name", sha256(b"name").hexdigest())
    error = TechDeckTimeoutError("the client went away", operation="upload", timeout_seconds=5)
    response = runtime.handler.handle_file_upload_error(error, upload.upload_id, "a.csv")
    assert not list((runtime.settings.upload_dir / "partial").iterdir())
    with pytest.raises(FileUploadError, match=str(response["error_id"])):
        runtime.uploads.status(upload.upload_id)


def test_the_scheduled_upkeep_removes_abandoned_uploads(settings: Settings) -> None:
    app = create_app(settings, role=Role.PIPELINE)
    runtime = runtime_of(app)
    old, young = (runtime.uploads.begin("a.csv", 10, sha256(b"").hexdigest()) for _ in range(2))
    os.utime(settings.upload_dir / "partial" / old.upload_id / "manifest.json", (1, 1))
    runtime.redis.delete(f"td:upkeep-turn:{COLLECT}")
    app.tasks[COLLECT]()
    assert [folder.name for folder in (settings.upload_dir / "partial").iterdir()] == [young.upload_id]
    runtime.engine.dispose()

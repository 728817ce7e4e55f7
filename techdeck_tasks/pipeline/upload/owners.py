"""What one owner has in the folder of uploads, and whether more may come."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from techdeck_tasks.pipeline.data import folders
from techdeck_tasks.pipeline.upload.record import (
    FACTS,
    MANIFEST,
    OPEN,
    QUARANTINE,
    READY,
    AcceptedFile,
    Upload,
    UploadLimits,
)

_LOCK = "owners.lock"


def uploads_of(root: Path, owner: str) -> list[Upload | AcceptedFile]:
    """Return what `owner` has under way and what was accepted, the oldest first."""
    # In the order that files move in: one that is accepted meanwhile is found in one folder at least. What is
    # found in both is being accepted, and open until that is done.
    kept: dict[str, tuple[float, Upload | AcceptedFile]] = {
        facts["upload_id"]: (at, Upload(**facts)) for at, facts in _kept(root / OPEN, MANIFEST, owner)
    }
    for at, facts in _kept(root / READY, MANIFEST, owner):
        upload = Upload(**facts)
        path = root / READY / upload.upload_id / upload.filename
        kept.setdefault(upload.upload_id, (at, AcceptedFile.of(upload, path)))
    return [upload for _, upload in sorted(kept.values(), key=lambda each: each[0])]


@contextmanager
def admitted(root: Path, limits: UploadLimits, upload: Upload) -> Iterator[None]:
    """Let `upload` be made inside: counted and made under one lock, so that of two one takes the last place.

    Raises:
        RateLimitError: its owner has too many open uploads, or too many bytes here.
    """
    if upload.owner is None:
        yield
        return
    folders.make_folder(root, private=True)
    with (root / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = uploads_of(root, upload.owner)
        refused = _kept(root / QUARANTINE, FACTS, upload.owner)
        limits.admit(
            upload,
            open_uploads=sum(isinstance(each, Upload) for each in kept),
            kept_bytes=sum(each.size_bytes for each in kept)
            + sum(facts["size_bytes"] for _, facts in refused),
        )
        yield


def _kept(folder: Path, name: str, owner: str) -> Iterator[tuple[float, dict[str, Any]]]:
    """Give the facts of each of the owner's files in a folder, with the time they were written at."""
    for path in folder.glob(f"*/{name}"):
        try:
            with path.open() as file:
                facts, written_at = json.load(file), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            continue
        if facts["owner"] == owner:
            yield written_at, facts

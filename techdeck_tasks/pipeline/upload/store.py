"""Uploads: in chunks, resumable, checksummed; nothing is handed on before the whole file was checked.

    partial/<id>/     the manifest and what arrived so far
    ready/<id>/       the manifest and the accepted file under its own name
    quarantine/<id>/  what was refused for its content, under the name ``content``, and why
    failed/<id>.json  the error that ended an upload

The folders are the owner's only. What arrived counts once it is on the disk and the manifest says so; a chunk
that was being written when the process died is written again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import FileUploadError
from techdeck_tasks.pipeline.data import data_url, folders
from techdeck_tasks.pipeline.data.digest import file_digest
from techdeck_tasks.pipeline.upload.content import content_problem
from techdeck_tasks.pipeline.upload.names import checked_name, shown_name
from techdeck_tasks.pipeline.upload.owners import admitted, uploads_of
from techdeck_tasks.pipeline.upload.record import (
    FACTS,
    MANIFEST,
    OPEN,
    QUARANTINE,
    READY,
    AcceptedFile,
    UnknownUploadError,
    Upload,
    UploadLimits,
)

_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DATA, _CONTENT = "data", "content"


class UploadStore:
    """Keeps uploads in a local folder. May be used by several processes at once.

    Args:
        root: the folder; made at the first upload.
        limits: the bounds.
        clock: tells the age of uploads.
    """

    def __init__(self, root: Path, limits: UploadLimits, clock: Clock) -> None:
        self._root = root
        self.limits = limits
        self._clock = clock

    def begin(self, filename: str, size_bytes: int, sha256: str, owner: str | None = None) -> Upload:
        """Open an upload.

        Args:
            filename: the client's name of the file.
            size_bytes: the size it will have.
            sha256: its digest, 64 hex digits.
            owner: who sends it, and whose uploads are bounded together; None: the service itself.

        Raises:
            FileUploadError: the name, the size or the digest is refused.
            RateLimitError: the owner has too many open uploads, or too many bytes here.
        """
        shown = shown_name(filename)
        try:
            name = checked_name(filename)
        except ValueError as error:
            raise FileUploadError(
                f"the file name {shown!r} is refused: {error}; rename the file", filename=shown
            ) from None
        if not 0 < size_bytes <= self.limits.max_bytes:
            raise FileUploadError(
                f"{shown!r} has {size_bytes} bytes; 1 to {self.limits.max_bytes} are taken: split the file",
                filename=shown,
                file_size=size_bytes,
            )
        if not _DIGEST.fullmatch(sha256.lower()):
            raise FileUploadError(f"the SHA-256 of {shown!r} is not 64 hex digits", filename=shown)
        upload = Upload(uuid.uuid4().hex, name, size_bytes, sha256.lower(), owner=owner)
        with admitted(self._root, self.limits, upload):
            folder = self._partial(upload.upload_id)
            folders.make_folder(folder, private=True)
            (folder / _DATA).touch(mode=0o600)
            self._save(upload)
        return upload

    def of_owner(self, owner: str) -> list[Upload | AcceptedFile]:
        """Return what `owner` has under way and what was accepted, the oldest first."""
        return uploads_of(self._root, owner)

    def status(self, upload_id: str) -> Upload:
        """Return how far an upload is.

        Raises:
            UnknownUploadError: it is unknown, finished or cancelled.
            FileUploadError: it failed; the text tells how.
        """
        folder = self._partial(upload_id)
        try:
            return Upload(**json.loads((folder / MANIFEST).read_text()))
        except FileNotFoundError:
            pass
        try:
            failure = json.loads(self._failed(upload_id).read_text())
        except FileNotFoundError:
            raise _unknown(upload_id) from None
        raise FileUploadError(
            f"the upload failed with {failure['error_code']}, error {failure['error_id']}; begin another",
            upload_id=upload_id,
        )

    def put_chunk(self, upload_id: str, offset: int, chunk: bytes, sha256: str) -> Upload:
        """Take the bytes at `offset`; a chunk that is there already changes nothing.

        Args:
            upload_id: from `begin`.
            offset: where the chunk belongs, from 0; at most `received_bytes`.
            chunk: the bytes.
            sha256: their digest.

        Raises:
            FileUploadError: the chunk is damaged, too large, beyond the file's end or leaves a gap.
        """
        with self._held(upload_id) as (upload, data):
            if len(chunk) > self.limits.max_chunk_bytes:
                raise _refused(
                    upload,
                    f"a chunk has {len(chunk)} bytes; at most {self.limits.max_chunk_bytes} are taken",
                )
            if hashlib.sha256(chunk).hexdigest() != sha256.lower():
                raise _refused(upload, f"the chunk at {offset} is not what its SHA-256 says; send it again")
            if not 0 <= offset <= upload.received_bytes:
                raise _refused(
                    upload, f"the chunk at {offset} leaves a gap; go on at {upload.received_bytes}"
                )
            end = offset + len(chunk)
            if end > upload.size_bytes:
                raise _refused(
                    upload, f"the chunk at {offset} ends after the {upload.size_bytes} bytes announced"
                )
            if end <= upload.received_bytes:
                return upload
            os.pwrite(data, chunk, offset)
            os.fsync(data)
            received = replace(upload, received_bytes=end)
            self._save(received)
            return received

    def finish(self, upload_id: str) -> AcceptedFile:
        """Check the whole file and accept it; a file that was accepted already is so again.

        Raises:
            FileUploadError: bytes are missing (the upload stays open), the digest differs (it is removed), or
                the content is not what the name says (it goes to quarantine).
        """
        try:
            return self.accepted(upload_id) or self._accept(upload_id)
        except UnknownUploadError:
            # Another one accepted it while this one waited for its turn.
            if accepted := self.accepted(upload_id):
                return accepted
            raise

    def _accept(self, upload_id: str) -> AcceptedFile:
        with self._held(upload_id) as (upload, data):
            if upload.received_bytes != upload.size_bytes:
                raise _refused(
                    upload,
                    f"{upload.received_bytes} of {upload.size_bytes} bytes arrived; "
                    f"go on at {upload.received_bytes}",
                )
            os.ftruncate(data, upload.size_bytes)
            path = self._partial(upload_id) / _DATA
            if file_digest(path) != upload.sha256:
                self._remove(upload_id)
                raise _refused(upload, "the file is not what its SHA-256 says; upload it again")
            form = str(data_url.data_format(upload.filename))
            problem = content_problem(path, form, self.limits.max_unpacked_bytes)
            if problem is not None:
                self._quarantine(upload, path, problem)
                raise _refused(upload, f"its content is refused as {form}: {problem}; it is in quarantine")
            target = self._ready(upload_id) / upload.filename
            folders.make_folder(target.parent, private=True)
            _write_whole(target.parent / MANIFEST, asdict(upload))
            path.replace(target)
            self._remove(upload_id)
        return AcceptedFile.of(upload, target)

    def accepted(self, upload_id: str) -> AcceptedFile | None:
        """Return the accepted file of an upload; None where it was not accepted, or removed since."""
        folder = self._ready(upload_id)
        try:
            upload = Upload(**json.loads((folder / MANIFEST).read_text()))
        except FileNotFoundError:
            return None
        path = folder / upload.filename
        return AcceptedFile.of(upload, path) if path.is_file() else None

    def accepted_at(self, url: str) -> AcceptedFile:
        """Return the accepted file that `AcceptedFile.url` names.

        Raises:
            UnknownUploadError: it is not there, or not any more.
        """
        upload_id = urlsplit(url).netloc
        found = self.accepted(upload_id) if _ID.fullmatch(upload_id) else None
        if found is None or found.url != url:
            raise _no_source()
        return found

    def require_owner(self, url: str, owner: str) -> None:
        """Check that the accepted file at `url` is the owner's. For others it is not there.

        Raises:
            UnknownUploadError: it is not, or not any more.
        """
        if self.accepted_at(url).owner != owner:
            raise _no_source()

    def cancel(self, upload_id: str) -> None:
        """Remove what arrived of an upload; there may be nothing."""
        if _ID.fullmatch(upload_id):
            self._remove(upload_id)

    def discard(self, accepted: AcceptedFile) -> None:
        """Remove an accepted file once its content is where it belongs; it may be gone."""
        shutil.rmtree(accepted.path.parent, ignore_errors=True)

    def note_failure(self, upload_id: str, response: Mapping[str, Any]) -> None:
        """Keep what `status` tells of an upload that failed.

        Args:
            upload_id: from `begin`; another id is not kept.
            response: the error handler's, with ``error_id`` and ``error_code``.
        """
        if _ID.fullmatch(upload_id):
            target = self._failed(upload_id)
            folders.make_folder(target.parent, private=True)
            _write_whole(target, {name: response[name] for name in ("error_id", "error_code")})

    def remove_abandoned(self, max_age: timedelta, quarantine_age: timedelta) -> int:
        """Remove uploads that nothing arrived for since `max_age`, and accepted files and notes as old.

        What was refused goes after `quarantine_age`: it may be data of patients, and counts for its owner.

        Safe to run twice at once; for a scheduler. Returns how many uploads were removed, accepted ones too.
        """
        now = self._clock.now()
        oldest = (now - max_age).timestamp()
        removed = 0
        for pattern, age in ((f"*/*/{MANIFEST}", max_age), (f"{QUARANTINE}/*/{FACTS}", quarantine_age)):
            for facts in self._root.glob(pattern):
                if _is_older(facts, (now - age).timestamp()):
                    _remove_folder(facts.parent)
                    removed += 1
        for note in (self._root / "failed").glob("*.json"):
            if _is_older(note, oldest):
                note.unlink(missing_ok=True)
        return removed

    # -- the folders ------------------------------------------------------------------------------------

    def _partial(self, upload_id: str) -> Path:
        if not _ID.fullmatch(upload_id):
            raise FileUploadError("an upload's id is 32 hex digits; take it from the upload's beginning")
        return self._root / OPEN / upload_id

    def _ready(self, upload_id: str) -> Path:
        return self._root / READY / self._partial(upload_id).name

    def _failed(self, upload_id: str) -> Path:
        return self._root / "failed" / f"{upload_id}.json"

    @contextmanager
    def _held(self, upload_id: str) -> Iterator[tuple[Upload, int]]:
        """Give the upload and its open data file to one caller at a time."""
        try:
            data = os.open(self._partial(upload_id) / _DATA, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            self.status(upload_id)
            raise
        try:
            fcntl.flock(data, fcntl.LOCK_EX)
            # Read under the lock: another process may have finished the upload meanwhile.
            yield self.status(upload_id), data
        finally:
            os.close(data)

    def _save(self, upload: Upload) -> None:
        _write_whole(self._partial(upload.upload_id) / MANIFEST, asdict(upload))

    def _remove(self, upload_id: str) -> None:
        _remove_folder(self._partial(upload_id))

    def _quarantine(self, upload: Upload, path: Path, problem: str) -> None:
        folder = self._root / QUARANTINE / upload.upload_id
        folders.make_folder(folder, private=True)
        path.replace(folder / _CONTENT)
        (folder / _CONTENT).chmod(0o400)
        facts = {**asdict(upload), "problem": problem, "at": self._clock.now().isoformat()}
        _write_whole(folder / FACTS, facts)
        self._remove(upload.upload_id)


def _no_source() -> UnknownUploadError:
    return UnknownUploadError("the source is an upload that is not there (any more); upload the file again")


def _unknown(upload_id: str) -> UnknownUploadError:
    return UnknownUploadError("there is no such upload under way; begin another", upload_id=upload_id)


def _refused(upload: Upload, why: str) -> FileUploadError:
    shown = shown_name(upload.filename)
    return FileUploadError(
        f"{shown!r}: {why}", filename=shown, file_size=upload.size_bytes, upload_id=upload.upload_id
    )


def _remove_folder(folder: Path) -> None:
    # The manifest first: an upload that is half removed is no upload.
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _write_whole(target: Path, facts: Mapping[str, Any]) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with temporary.open("w") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False

"""The archive: each month that retention dropped, sealed as it was, in one compressed file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import IO, Any

from sqlalchemy import Connection, select

from techdeck_tasks.audit.folder import Folder
from techdeck_tasks.audit.models import AuditEventRow
from techdeck_tasks.audit.month import bounds_of
from techdeck_tasks.audit.proof.statement import Signed
from techdeck_tasks.audit.row_document import (
    MALFORMED,
    DiffersError,
    StoredRow,
    document_of,
    from_base64,
    read_row,
    to_base64,
    to_line,
)
from techdeck_tasks.errors import ValidationError

_TOMBSTONE = re.compile(r"/audit-(\d{4})-(0[1-9]|1[0-2])\.tombstone\.json$")
_IN_MEMORY_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_COMPRESSION = 1
"""Ciphertext hardly shrinks: more effort only takes time."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What was written: the SHA-256 of the file, and how many rows it holds."""

    digest: bytes
    rows: int


class Archive:
    """Months in a folder that fsspec reaches, ``audit-2026-01.jsonl.gz`` each. Its errors pass through.

    Beside each is its signed tombstone, ``audit-2026-01.tombstone.json``.

    A file holds no data key: what erasure destroys in the database cannot be read here either.

    Args:
        url: of the folder; made at the first write. A local one belongs to its owner alone (mode 0700).
    """

    def __init__(self, url: str) -> None:
        self._folder = Folder(url)

    def write(self, connection: Connection, month: date) -> Archived:
        """Write a month, in the order of its chains. The same rows give the same bytes.

        Args:
            connection: a transaction that sees the month.
            month: any day of it.
        """
        begin, end = bounds_of(month)
        statement = (
            select(AuditEventRow.__table__)
            .where(AuditEventRow.occurred_at >= begin, AuditEventRow.occurred_at < end)
            .order_by(AuditEventRow.writer_id, AuditEventRow.writer_seq)
            .execution_options(yield_per=500)
        )
        rows = 0
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            with gzip.GzipFile(
                filename="", mode="wb", fileobj=file, compresslevel=_COMPRESSION, mtime=0
            ) as packed:
                for rows, row in enumerate(connection.execute(statement), 1):  # noqa: B007 - the last is the number
                    packed.write(to_line(document_of(row)))
            file.seek(0)
            digest = _digest_of(file)
            file.seek(0)
            self._folder.write(_name(month), file)
        return Archived(digest, rows)

    def write_tombstone(self, month: date, signed: Signed) -> None:
        """Write the signed tombstone of a month beside it."""
        document = {
            "key_id": signed.key_id,
            "statement": to_base64(signed.statement),
            "signature": to_base64(signed.signature),
        }
        self._folder.write(_tombstone_name(month), io.BytesIO(to_line(document)))

    def tombstone(self, month: date) -> Signed | None:
        """Return the tombstone beside a month, as it can be read now; None where there is none.

        Raises:
            DiffersError: the file is no tombstone.
        """
        if not self._folder.has(_tombstone_name(month)):
            return None
        with self._folder.open(_tombstone_name(month)) as file:
            try:
                document = json.loads(file.read())
                statement, signature = (from_base64(document[name]) for name in ("statement", "signature"))
                return Signed(statement, str(document["key_id"]), signature)
            except MALFORMED:
                raise DiffersError("is no tombstone") from None

    def tombstone_months(self) -> set[date]:
        """Return the months that have a tombstone beside them."""
        found = map(_TOMBSTONE.search, self._folder.paths(""))
        return {date(int(name[1]), int(name[2]), 1) for name in found if name}

    def has(self, month: date) -> bool:
        """Tell whether a month is there."""
        return self._folder.has(_name(month))

    def digest(self, month: date) -> bytes:
        """Return the SHA-256 of a month's file, as it can be read now."""
        with self._folder.open(_name(month)) as file:
            return _digest_of(file)

    def rows(self, month: date) -> Iterator[StoredRow]:
        """Yield a month's rows, each recomputed.

        Raises:
            ValidationError: there is no such month, or the file is no archive.
            DiffersError: a row does not fit its hash.
        """
        if not self.has(month):
            raise ValidationError(f"the audit archive has no month {month:%Y-%m}", field="month")
        with self._folder.open(_name(month)) as file, gzip.GzipFile(fileobj=file) as packed:
            for number, line in enumerate(packed, 1):
                try:
                    yield read_row(json.loads(line))
                except (json.JSONDecodeError, KeyError, TypeError, EOFError, gzip.BadGzipFile) as error:
                    raise ValidationError(
                        f"line {number} of the audit archive of {month:%Y-%m} is no row: "
                        f"{type(error).__name__}",
                        field="month",
                    ) from None


def _name(month: date) -> str:
    return f"audit-{month:%Y-%m}.jsonl.gz"


def _tombstone_name(month: date) -> str:
    return f"audit-{month:%Y-%m}.tombstone.json"


def _digest_of(file: IO[bytes] | Any) -> bytes:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.digest()

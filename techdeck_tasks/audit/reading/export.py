"""Audit entries as files: JSON lines, and CSV that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from techdeck_tasks.audit.reading.entry import ENTRY_KEYS, AuditEntry
from techdeck_tasks.errors import ValidationError

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet run a cell (OWASP, CSV injection)."""


class ExportFormat(StrEnum):
    """How entries are written."""

    JSONL = "jsonl"
    CSV = "csv"


def write_entries(entries: Iterable[AuditEntry], kind: ExportFormat, target: TextIO) -> int:
    """Write `entries` to `target`, which is open for text without newline translation; return how many."""
    return (_write_jsonl if kind is ExportFormat.JSONL else _write_csv)(entries, target)


@contextmanager
def private_file(path: Path) -> Iterator[TextIO]:
    """Yield a file that becomes `path` only when it is complete and on disk; readable by its owner alone.

    Raises:
        ValidationError: its folder is missing or cannot be written to.
        OSError: it could not be written; what was at `path` before is still there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ValidationError(
            f"no file can be made in {path.parent} ({error.strerror}); choose another folder", field="output"
        ) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_jsonl(entries: Iterable[AuditEntry], target: TextIO) -> int:
    count = 0
    for count, entry in enumerate(entries, 1):  # noqa: B007 - the last count is the result
        target.write(json.dumps(entry.to_dict(), separators=(",", ":")) + "\n")
    return count


def _write_csv(entries: Iterable[AuditEntry], target: TextIO) -> int:
    # The long column last.
    columns = [*(name for name in ENTRY_KEYS if name != "document"), "message", "document"]
    writer = csv.DictWriter(target, columns)
    writer.writeheader()
    count = 0
    for count, entry in enumerate(entries, 1):  # noqa: B007 - the last count is the result
        row = entry.to_dict()
        if entry.document is not None:
            row |= {"message": entry.document.get("message"), "document": json.dumps(entry.document)}
        writer.writerow({name: _harmless(value) for name, value in row.items()})
    return count


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value

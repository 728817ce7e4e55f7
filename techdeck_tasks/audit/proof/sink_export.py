"""Copying the log to its backup sink, a segment for each checkpoint."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import IO, Any

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.engine import Row

from techdeck_tasks.audit.models import AuditDataKey, AuditEventRow
from techdeck_tasks.audit.proof.checkpoint import Checkpoint
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.row_document import document_of, to_base64, to_line
from techdeck_tasks.clock import Clock
from techdeck_tasks.storage.database import transaction

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 3600.0
"""So often the whole sink is listed: what somebody removed is written again."""

_IN_MEMORY_BYTES = 16 << 20

_NUMBERS = text("SELECT checkpoint_seq FROM audit_checkpoint WHERE checkpoint_seq > :after ORDER BY 1")
_CHECKPOINT_AND_BEFORE = text("""
    SELECT checkpoint_seq, key_id, statement, signature FROM audit_checkpoint
    WHERE checkpoint_seq <= :number ORDER BY checkpoint_seq DESC LIMIT 2
""")


class SinkExporter:
    """Keeps a sink up to date. What the sink itself holds says what it lacks.

    Several audit workers may export at once: a segment's content depends on the log alone.

    Args:
        engine: the database.
        store: the sink.
        clock: says when to look at the whole sink again.
    """

    def __init__(self, engine: Engine, store: SegmentStore, clock: Clock) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._done = 0
        self._looked_at: float | None = None
        self._known_keys: set[uuid.UUID] = set()

    def catch_up(self) -> int:
        """Write the segments that the sink lacks, oldest first; return how many.

        Raises:
            ServiceUnavailableError: PostgreSQL is away.
            Exception: the sink's file system fails; what was written stays, the rest waits for the next call.
        """
        written = 0
        for number in self._lacking():
            self._export(number)
            self._done = max(self._done, number)
            written += 1
        return written

    def _lacking(self) -> Iterator[int]:
        if self._looked_at is None or self._clock.monotonic() - self._looked_at >= LOOK_AGAIN_S:
            there = self._store.numbers()
            numbers = self._numbers(0)
            newest = max(numbers, default=0)
            if max(there, default=0) > newest:
                logger.critical(
                    "the audit sink holds checkpoint %d, the database ends at %d: it was rolled back; "
                    "run 'techdeck audit verify'",
                    max(there),
                    newest,
                )
            removed = [number for number in numbers if number not in there and number <= self._done]
            if removed:
                logger.critical(
                    "%d segments were removed from the audit sink, the first is %d; they are written again",
                    len(removed),
                    removed[0],
                )
            self._replace_removed_keys()
            yield from (number for number in numbers if number not in there)
            self._done = max(self._done, newest)
            self._looked_at = self._clock.monotonic()
        else:
            yield from (number for number in self._numbers(self._done) if not self._store.has(number))

    def _numbers(self, after: int) -> list[int]:
        with transaction(self._engine) as connection:
            return list(connection.execute(_NUMBERS, {"after": after}).scalars())

    def _export(self, number: int) -> None:
        # Through a file: no transaction stays open while a sink takes its time.
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            with transaction(self._engine) as connection:
                keys = _write_segment(connection, number, file)
                if keys is None:
                    logger.critical(
                        "segment %d of the audit sink cannot be written: rows of it are not in the database "
                        "any more; run 'techdeck audit verify'",
                        number,
                    )
                    return
            missing = keys - self._known_keys
            self._export_keys(
                key for key in self._keys_of(missing) if not self._store.has_key(str(key.key_id))
            )
            file.seek(0)
            self._store.write(number, file)
        self._known_keys |= missing

    def _replace_removed_keys(self) -> None:
        """Write the data keys again that somebody removed from the sink."""
        there = self._store.keys()
        removed = [key_id for key_id in self._known_keys if str(key_id) not in there]
        lost = self._keys_of(removed)
        if lost:
            logger.critical(
                "%d data keys were removed from the audit sink; they are written again", len(lost)
            )
            self._export_keys(lost)

    def _keys_of(self, wanted: Iterable[uuid.UUID]) -> list[Row[Any]]:
        """Return those of the data keys `wanted` that are not destroyed."""
        statement = select(AuditDataKey.__table__).where(
            AuditDataKey.key_id.in_(wanted), AuditDataKey.erased_at.is_(None)
        )
        with transaction(self._engine) as connection:
            return list(connection.execute(statement).all())

    def _export_keys(self, keys: Iterable[Row[Any]]) -> None:
        written = {}
        for key in keys:
            self._store.write_key(key)
            written[key.key_id] = key.sealed_key
        # Meanwhile some may have been destroyed, or sealed anew: both reach the sink before or after this.
        current = {key.key_id: key for key in self._keys_of(written)}
        for key_id, sealed_key in written.items():
            if key_id not in current:
                self._store.forget_key(str(key_id))
            elif current[key_id].sealed_key != sealed_key:
                self._store.write_key(current[key_id])


def _write_segment(connection: Connection, number: int, file: IO[bytes]) -> set[uuid.UUID] | None:
    """Write segment `number` to `file`; return the ids of its data keys, None where rows of it are gone."""
    found = connection.execute(_CHECKPOINT_AND_BEFORE, {"number": number}).all()
    row = found[0]
    checkpoint = Checkpoint.decode(row.statement)
    before = Checkpoint.decode(found[1].statement).heads if len(found) > 1 else ()
    begin = {head.writer_id: head.seq for head in before}
    keys = set()
    rows = 0
    for head in checkpoint.heads:
        statement = (
            select(AuditEventRow.__table__)
            .where(
                AuditEventRow.writer_id == head.writer_id,
                AuditEventRow.writer_seq > begin.get(head.writer_id, 0),
                AuditEventRow.writer_seq <= head.seq,
            )
            .order_by(AuditEventRow.writer_seq)
            .execution_options(yield_per=500)
        )
        for event in connection.execute(statement):
            rows += 1
            keys.add(event.key_id)
            file.write(to_line(document_of(event)))
    if rows < sum(head.seq - begin.get(head.writer_id, 0) for head in checkpoint.heads):
        return None
    file.write(
        to_line(
            {
                "kind": "checkpoint",
                "checkpoint": checkpoint.seq,
                "made_at": checkpoint.made_at.isoformat(),
                "rows": checkpoint.rows,
                "key_id": row.key_id,
                "statement": to_base64(row.statement),
                "signature": to_base64(row.signature),
            }
        )
    )
    return keys

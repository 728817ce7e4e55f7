"""Checkpoints: signed statements of where every writer's chain ended at a moment.

A chain alone cannot show that its end was cut off, or that all of it was written anew. A checkpoint can: it
holds the heads of all writers, and its key is not in the database. Checkpoints are numbered and chained
themselves, and one is made even where nothing was written: a missing one shows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from sqlalchemy import Connection, Engine, insert, text

from techdeck_tasks.audit.models import AuditCheckpoint
from techdeck_tasks.audit.proof.chain import Head
from techdeck_tasks.audit.proof.statement import Signer, StatementReader, StatementWriter
from techdeck_tasks.clock import Clock
from techdeck_tasks.storage.database import bound, transaction

_MAGIC, _VERSION = b"TDCP", 1
_GENESIS = hashlib.sha256(b"techdeck-audit-checkpoint-genesis-1").digest()

# One audit worker makes a checkpoint; the others wait for its commit and find it made.
_LOCK = text("SELECT pg_advisory_xact_lock(7236589410022)")
_STUCK_AFTER = timedelta(minutes=1)
"""The lock of a worker that was stopped in the middle is gone after this."""

_STATE = text("""
    SELECT last.checkpoint_seq, last.made_at, last.rows, last.statement, heads.total
    FROM (SELECT coalesce(sum(writer_seq), 0)::bigint AS total FROM audit_writer_head) heads
    LEFT JOIN LATERAL (SELECT * FROM audit_checkpoint ORDER BY checkpoint_seq DESC LIMIT 1) last ON true
""")
_HEADS = text(
    """SELECT writer_id, writer_seq, row_hash FROM audit_writer_head ORDER BY writer_id COLLATE "C" """
)
PARTITIONS = text("""
    SELECT right(relname, 6) AS month FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'audit_event'::regclass AND relname ~ '^audit_event_p[0-9]{6}$' ORDER BY month
""")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed.

    Attributes:
        seq: counts from 1 without gaps.
        prev_hash: the hash of the checkpoint before.
        made_at: aware UTC.
        rows: how many rows all writers had written.
        heads: where each writer's chain ended.
        partitions: the months whose rows were there, as YYYYMM.
    """

    seq: int
    prev_hash: bytes
    made_at: datetime
    rows: int
    heads: tuple[Head, ...]
    partitions: tuple[str, ...]

    @property
    def key(self) -> int:
        """What names it in its table."""
        return self.seq

    def encode(self) -> bytes:
        """Return the bytes that are signed."""
        writer = StatementWriter(_MAGIC, _VERSION)
        writer.number(self.seq)
        writer.blob(self.prev_hash)
        writer.moment(self.made_at)
        writer.number(self.rows)
        writer.number(len(self.heads))
        for head in self.heads:
            writer.text(head.writer_id)
            writer.number(head.seq)
            writer.blob(head.row_hash)
        writer.number(len(self.partitions))
        for month in self.partitions:
            writer.text(month)
        return writer.to_bytes()

    @classmethod
    def decode(cls, statement: bytes) -> Self:
        """Return the checkpoint of a statement.

        Raises:
            ValidationError: it is none.
        """
        reader = StatementReader(statement, _MAGIC, _VERSION)
        checkpoint = cls(
            seq=reader.number(),
            prev_hash=reader.blob(),
            made_at=reader.moment(),
            rows=reader.number(),
            heads=tuple(Head(reader.text(), reader.number(), reader.blob()) for _ in reader.count()),
            partitions=tuple(reader.text() for _ in reader.count()),
        )
        reader.end()
        return checkpoint


def hash_checkpoint(statement: bytes | None) -> bytes:
    """Return what the next checkpoint calls its `prev_hash`; None stands for the one before the first."""
    return _GENESIS if statement is None else hashlib.sha256(statement).digest()


class Checkpointer:
    """Makes checkpoints when they are due.

    Args:
        engine: the database.
        signer: holds the private key.
        clock: tells `made_at`.
        interval: so long after the last one the next is made, also where nothing was written.
        rows: after so many rows one is made at once.
    """

    def __init__(self, engine: Engine, signer: Signer, clock: Clock, interval: timedelta, rows: int) -> None:
        self._engine = engine
        self._signer = signer
        self._clock = clock
        self._interval = interval
        self._rows = rows

    def make_if_due(self) -> Checkpoint | None:
        """Make a checkpoint if one is due; return it. Several audit workers may ask at once: one makes it.

        Raises:
            ServiceUnavailableError: PostgreSQL is away; nothing was made.
        """
        with transaction(self._engine) as connection:
            bound(connection, _STUCK_AFTER)
            if not self._is_due(connection):
                return None
            connection.execute(_LOCK)
            return self._make(connection) if self._is_due(connection) else None

    def make(self) -> Checkpoint:
        """Make a checkpoint now.

        Raises:
            ServiceUnavailableError: PostgreSQL is away; nothing was made.
        """
        with transaction(self._engine) as connection:
            bound(connection, _STUCK_AFTER)
            connection.execute(_LOCK)
            return self._make(connection)

    def _is_due(self, connection: Connection) -> bool:
        state = connection.execute(_STATE).one()
        return (
            state.checkpoint_seq is None
            or self._clock.now() - state.made_at >= self._interval
            or state.total - state.rows >= self._rows
        )

    def _make(self, connection: Connection) -> Checkpoint:
        last = connection.execute(_STATE).one()
        heads = tuple(
            Head(row.writer_id, row.writer_seq, bytes(row.row_hash)) for row in connection.execute(_HEADS)
        )
        checkpoint = Checkpoint(
            seq=(last.checkpoint_seq or 0) + 1,
            prev_hash=hash_checkpoint(last.statement),
            made_at=self._clock.now(),
            rows=sum(head.seq for head in heads),
            heads=heads,
            partitions=tuple(connection.execute(PARTITIONS).scalars()),
        )
        signed = self._signer.sign(checkpoint.encode())
        connection.execute(
            insert(AuditCheckpoint).values(
                checkpoint_seq=checkpoint.seq,
                made_at=checkpoint.made_at,
                rows=checkpoint.rows,
                key_id=signed.key_id,
                statement=signed.statement,
                signature=signed.signature,
            )
        )
        return checkpoint

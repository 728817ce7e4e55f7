"""The audit log's tables.

`audit_event` and `audit_event_id` are partitioned by month of `occurred_at`, so that retention drops whole
partitions. Rows are only ever added: triggers made by the migration refuse UPDATE, DELETE and TRUNCATE.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, Date, DateTime, Index, Integer, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.orm import Mapped, mapped_column

from techdeck_tasks.storage.database import Base

Timestamp = DateTime(timezone=True)


class AuditEventRow(Base):
    """One sealed event, its place in its writer's chain, and the proof of both."""

    __tablename__ = "audit_event"
    __table_args__ = (
        Index("ix_audit_event_writer", "writer_id", "writer_seq"),
        Index("ix_audit_event_producer", "producer_id", "producer_seq"),
        Index("ix_audit_event_error_id", "error_id"),
        Index("ix_audit_event_task_id", "task_id"),
        Index("ix_audit_event_pipeline_id", "pipeline_id"),
        Index("ix_audit_event_error_code", "error_code", "occurred_at"),
        Index("ix_audit_event_service", "service", "occurred_at"),
        Index("ix_audit_event_user_index", "user_index"),
        Index("ix_audit_event_subject_index", "subject_index"),
        Index(
            "ix_audit_event_incident",
            "occurred_at",
            postgresql_where=text("event_type = 'security_incident'"),
        ),
        Index("ix_audit_event_hipaa", "occurred_at", postgresql_where=text("hipaa_related")),
        {"postgresql_partition_by": "RANGE (occurred_at)"},
    )

    occurred_at: Mapped[datetime] = mapped_column(Timestamp, primary_key=True)
    event_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    recorded_at: Mapped[datetime] = mapped_column(Timestamp)
    tenant: Mapped[str] = mapped_column(Text)
    producer_id: Mapped[uuid.UUID] = mapped_column(UUID)
    producer_seq: Mapped[int] = mapped_column(BigInteger)
    event_type: Mapped[str] = mapped_column(Text)
    severity: Mapped[str] = mapped_column(Text)
    service: Mapped[str] = mapped_column(Text)
    operation: Mapped[str] = mapped_column(Text)
    retention_days: Mapped[int] = mapped_column(Integer)
    hipaa_related: Mapped[bool]
    hipaa_notify: Mapped[bool]
    key_id: Mapped[uuid.UUID] = mapped_column(UUID)
    sealed_document: Mapped[bytes] = mapped_column(LargeBinary)
    outcome: Mapped[str | None] = mapped_column(Text)
    error_id: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(Text)
    task_name: Mapped[str | None] = mapped_column(Text)
    task_id: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int | None] = mapped_column(Integer)
    pipeline_id: Mapped[str | None] = mapped_column(Text)
    stage: Mapped[str | None] = mapped_column(Text)
    user_index: Mapped[bytes | None] = mapped_column(LargeBinary)
    subject_index: Mapped[bytes | None] = mapped_column(LargeBinary)
    content_digest: Mapped[bytes] = mapped_column(LargeBinary)
    writer_id: Mapped[str] = mapped_column(Text)
    writer_seq: Mapped[int] = mapped_column(BigInteger)
    prev_hash: Mapped[bytes] = mapped_column(LargeBinary)
    row_hash: Mapped[bytes] = mapped_column(LargeBinary)


class AuditEventId(Base):
    """Every event id ever written, with its digest: an event sent twice becomes one row."""

    __tablename__ = "audit_event_id"
    __table_args__ = ({"postgresql_partition_by": "RANGE (occurred_at)"},)

    occurred_at: Mapped[datetime] = mapped_column(Timestamp, primary_key=True)
    event_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    content_digest: Mapped[bytes] = mapped_column(LargeBinary)


class AuditWriterHead(Base):
    """The end of each writer's chain; advanced, under its lock, in the transaction that adds the rows."""

    __tablename__ = "audit_writer_head"

    writer_id: Mapped[str] = mapped_column(Text, primary_key=True)
    writer_seq: Mapped[int] = mapped_column(BigInteger)
    row_hash: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[datetime] = mapped_column(Timestamp)


class AuditDataKey(Base):
    """A producer's data key, sealed to a reader's public key. Destroying it shreds the documents under it.

    The row of a destroyed key stays, without the key: an event that arrives late must not bring it back.
    """

    __tablename__ = "audit_data_key"

    key_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    recipient_id: Mapped[str] = mapped_column(Text)
    sealed_key: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    erased_at: Mapped[datetime | None] = mapped_column(Timestamp)


class AuditCheckpoint(Base):
    """A signed statement over all writers' heads; `statement` holds its canonical bytes."""

    __tablename__ = "audit_checkpoint"

    checkpoint_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    made_at: Mapped[datetime] = mapped_column(Timestamp)
    rows: Mapped[int] = mapped_column(BigInteger)
    key_id: Mapped[str] = mapped_column(Text)
    statement: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[bytes] = mapped_column(LargeBinary)


class AuditTombstone(Base):
    """A signed statement of what a dropped partition held; `statement` holds its canonical bytes."""

    __tablename__ = "audit_tombstone"

    month: Mapped[date] = mapped_column(Date, primary_key=True)
    made_at: Mapped[datetime] = mapped_column(Timestamp)
    rows: Mapped[int] = mapped_column(BigInteger)
    key_id: Mapped[str] = mapped_column(Text)
    statement: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[bytes] = mapped_column(LargeBinary)


class AuditHold(Base):
    """A legal hold: what it covers is neither pruned nor erased until it is released. Never removed."""

    __tablename__ = "audit_hold"
    __table_args__ = (
        CheckConstraint("person_kind IN ('user', 'subject')", name="person_kind"),
        CheckConstraint("(person_kind IS NULL) = (person_indexes IS NULL)", name="person"),
        CheckConstraint("occurred_from < occurred_until", name="period"),
        CheckConstraint("(released_at IS NULL) = (released_by IS NULL)", name="release"),
    )

    hold_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    created_by: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    # What is NULL does not narrow the hold; the end is exclusive.
    occurred_from: Mapped[datetime | None] = mapped_column(Timestamp)
    occurred_until: Mapped[datetime | None] = mapped_column(Timestamp)
    pipeline_id: Mapped[str | None] = mapped_column(Text)
    person_kind: Mapped[str | None] = mapped_column(Text)
    # The person's blind indexes, under every key there was.
    person_indexes: Mapped[list[bytes] | None] = mapped_column(ARRAY(LargeBinary))
    released_at: Mapped[datetime | None] = mapped_column(Timestamp)
    released_by: Mapped[str | None] = mapped_column(Text)
    release_reason: Mapped[str | None] = mapped_column(Text)


class AuditVerifyRun(Base):
    """One verification and what it found."""

    __tablename__ = "audit_verify_run"
    __table_args__ = (Index("ix_audit_verify_run_started_at", "started_at"),)

    run_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    started_at: Mapped[datetime] = mapped_column(Timestamp)
    finished_at: Mapped[datetime] = mapped_column(Timestamp)
    rows: Mapped[int] = mapped_column(BigInteger)
    writers: Mapped[int] = mapped_column(Integer)
    checkpoints: Mapped[int] = mapped_column(BigInteger)
    ok: Mapped[bool]
    finding_count: Mapped[int] = mapped_column(Integer)
    findings: Mapped[list[dict[str, str]]] = mapped_column(JSONB)

"""The audit log: how events get into it, who reads it, and who proves that nobody changed it."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from techdeck_tasks.audit.compliance.schedule import make_due
from techdeck_tasks.audit.compliance.store import ReportKind, ReportStore
from techdeck_tasks.audit.event import AuditTrail, operator_action
from techdeck_tasks.audit.incidents.store import IncidentStore
from techdeck_tasks.audit.proof import verify_run
from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.custody import Custody
from techdeck_tasks.audit.proof.finding import VerifyReport
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.sink_export import SinkExporter
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.verify import Progress, verify
from techdeck_tasks.audit.proof.verify_run import Verification
from techdeck_tasks.audit.reading.reader import AuditReader
from techdeck_tasks.audit.reading.search import BlindIndexes
from techdeck_tasks.audit.rekeying import Resealed, count_sealed_to, reseal
from techdeck_tasks.audit.retention.archive import Archive
from techdeck_tasks.audit.retention.erase import Eraser
from techdeck_tasks.audit.retention.holds import HoldStore
from techdeck_tasks.audit.retention.prune import Pruner
from techdeck_tasks.audit.sealing import Opener, blind_index
from techdeck_tasks.audit.writing.backlog import AuditBacklog, read_backlog
from techdeck_tasks.audit.writing.drain import Drain
from techdeck_tasks.audit.writing.publisher import StreamPublisher
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import AuditStream
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.keyring import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    CHECKPOINT_PRIVATE_KEYS,
    CHECKPOINT_PUBLIC_KEYS,
    KeySet,
)
from techdeck_tasks.runtime.resilience import Resilience
from techdeck_tasks.tasks.transitions import record_transitions


class Auditing(Resilience):
    """The audit log, written and read, with its incidents and reports."""

    @cached_property
    def audit(self) -> StreamPublisher:
        """Where events are recorded."""
        policies = self.settings.audit_fail_policy
        return StreamPublisher(self.redis, self.sealer, self.spool, self.clock, policies)

    @cached_property
    def spool(self) -> Spool:
        """Where events wait while Redis is away."""
        return Spool(self.settings.audit_spool_dir, self.settings.audit_spool_max_bytes)

    @property
    def trail(self) -> AuditTrail:
        """What the error handler records to."""
        return self.audit

    def flush_audit(self) -> None:
        """Send what this process's events still wait for. For shutdown."""
        if "audit" in self.__dict__:
            self.audit.flush()

    def record_action(self, service: str, operation: str, owner: str, **facts: Any) -> None:
        """Put a person's action on record, before it is done.

        Raises:
            AuditUnavailableError: it cannot be recorded; the action must not be taken.
        """
        self.audit.record(
            operator_action(
                service,
                operation,
                owner,
                {"owner": owner, **facts},
                severity=Severity.MEDIUM,
                retention_days=self.settings.error_log_retention_days,
            )
        )

    def audit_drain(self, node_name: str) -> Drain:
        """Return the loop that moves events from the stream into the log, for one audit worker."""
        writer = AuditWriter(self.engine, node_name, self.clock)
        return Drain(AuditStream(self.stream_redis, node_name), writer, self.settings.audit_batch_size)

    def audit_reader(self, reader: str) -> AuditReader:
        """Return the audit log as `reader` may see it: plaintext only where the private key is at hand."""
        path = self.settings.reader_keys_dir / AUDIT_PRIVATE_KEYS
        opener = Opener(KeySet.load(path)) if path.exists() else None
        return AuditReader(self.engine, self.audit, opener, reader, self._person_indexes)

    @property
    def _person_indexes(self) -> BlindIndexes | None:
        return self._blind_indexes if (self.settings.keys_dir / BLIND_INDEX_KEYS).exists() else None

    def _blind_indexes(self, what: str, value: str) -> list[bytes]:
        # Under every key: older rows were indexed under older ones.
        keys = KeySet.load(self.settings.keys_dir / BLIND_INDEX_KEYS).keys.values()
        return [blind_index(key, self.settings.tenant, what, value) for key in keys]

    @property
    def audit_archive(self) -> Archive | None:
        """The months that were dropped; None where `audit_archive_url` is not set."""
        url = self.settings.audit_archive_url
        return None if url is None else Archive(url)

    @property
    def _audit_sink(self) -> SegmentStore | None:
        url = self.settings.audit_sink_url
        return None if url is None else SegmentStore(url)

    @cached_property
    def holds(self) -> HoldStore:
        """Legal holds on the audit log."""
        days = self.settings.error_log_retention_days
        return HoldStore(self.engine, self.audit, self.clock, days, self._person_indexes)

    @cached_property
    def pruner(self) -> Pruner:
        """Archives and drops the audit log's months that are past their retention."""
        days = self.settings.error_log_retention_days
        return Pruner(
            self.engine,
            self.audit_archive,
            lambda: self.checkpoint_signer,
            self.audit,
            self.clock,
            retention_days=days,
            sink=self._audit_sink,
        )

    @cached_property
    def eraser(self) -> Eraser:
        """Destroys data keys of the audit log."""
        return Eraser(
            self.engine,
            self.audit,
            self.clock,
            self.settings.error_log_retention_days,
            blind_indexes=self._person_indexes,
            sink=self._audit_sink,
            archive=self.audit_archive,
        )

    def prune_audit(self) -> int:
        """Drop the months that are due, where there is an archive for them; return how many.

        Before, what the legal holds cover by now is put on record.
        """
        self.holds.note_months("schedule")
        return 0 if self.audit_archive is None else len(self.pruner.prune_due("schedule"))

    @cached_property
    def incidents(self) -> IncidentStore:
        """Security incidents and their investigation."""
        return IncidentStore(self.engine, self.audit, self.clock, self.settings.error_log_retention_days)

    def reseal_audit(self) -> Resealed:
        """Seal every data key of the audit log to the recipient that is active now."""
        opener = Opener(KeySet.load(self.settings.reader_keys_dir / AUDIT_PRIVATE_KEYS))
        recipients = KeySet.load(self.settings.keys_dir / AUDIT_PUBLIC_KEYS)
        return reseal(self.engine, opener, recipients, self._audit_sink)

    def check_audit_key_is_unused(self, key_id: str) -> None:
        """Make sure that nothing is left that only the private key `key_id` opens.

        Not seen are spools of other machines, and workers that were not restarted since the last rotation.

        Raises:
            ValidationError: rows are, or events on their way may be.
            ServiceUnavailableError: PostgreSQL is away.
        """
        if sealed := count_sealed_to(self.engine, key_id):
            raise ValidationError(
                f"audit key {key_id} is the only one that opens {sealed} data keys; "
                "run 'techdeck keys reseal' first",
                field="key_id",
            )
        backlog = self.audit_backlog()
        if backlog.stream_entries != 0 or backlog.spool_files:
            raise ValidationError(
                f"audit key {key_id} may be the only one that opens events on their way; try again when "
                "'techdeck audit status' shows neither stream entries nor spool files",
                field="key_id",
            )

    def verify_audit(
        self,
        *,
        since: datetime | None = None,
        sink_url: str | None = None,
        archive: Archive | None = None,
        on_progress: Progress = lambda _done, _total: None,
    ) -> VerifyReport:
        """Recompute the audit log's chains, and compare them with what was signed.

        Args:
            since: begin at the last checkpoint made at or before; default: at the first row.
            sink_url: compare with this backup sink too.
            archive: and the dropped months with this archive.
            on_progress: told of the rows done and of those there are.
        """
        return verify(
            self.engine,
            keys=KeySet.load(self.settings.keys_dir / CHECKPOINT_PUBLIC_KEYS),
            since=since,
            sink=None if sink_url is None else SegmentStore(sink_url),
            archive=archive,
            processes=self.settings.audit_verify_processes,
            on_progress=on_progress,
        )

    def inspect_audit(self) -> Verification:
        """Verify the log with its sink, keep the result, and put findings on record as an incident."""
        started_at = self.clock.now()
        report = self.verify_audit(sink_url=self.settings.audit_sink_url, archive=self.audit_archive)
        verification = Verification.of(report, started_at, self.clock.now())
        verify_run.keep(self.engine, verification)
        if not verification.ok:
            verify_run.raise_incident(self.audit, verification, self.settings.error_log_retention_days)
        return verification

    def last_verification(self) -> Verification | None:
        """Return the newest result of `inspect_audit`."""
        return verify_run.last(self.engine)

    @cached_property
    def reports(self) -> ReportStore:
        """Compliance reports and their sign-off."""
        return ReportStore(
            self.engine,
            self.audit,
            self.clock,
            self.settings.error_log_retention_days,
            last_verify=self._last_verify,
        )

    def _last_verify(self) -> dict[str, Any] | None:
        last = self.last_verification()
        if last is None:
            return None
        return {
            "verified_at": last.finished_at.isoformat(),
            "ok": last.ok,
            "rows": last.rows,
            "findings": last.finding_count,
        }

    def make_due_reports(self) -> int:
        """Make the scheduled compliance reports whose period is over."""
        self.incidents.catch_up()
        kinds = [ReportKind(kind) for kind in sorted(self.settings.compliance_report_schedule)]
        return make_due(self.reports, kinds, self.clock.now())

    def project_incidents(self) -> int:
        """Enter the log's new security incidents into their table."""
        return self.incidents.catch_up()

    def record_breakers(self) -> int:
        """Put the breakers' transitions since the last call on record."""
        days = self.settings.error_log_retention_days
        return record_transitions(self.breakers, self.audit, self.redis, days)

    def keep_audit_up(self) -> None:
        """Make the coming partitions, send what waits in the spool, and forget dead audit workers."""
        AuditWriter(self.engine, "upkeep", self.clock).prepare_partitions()
        self.audit.flush()
        AuditStream(self.redis, "upkeep").forget_dead_consumers()

    def audit_backlog(self) -> AuditBacklog:
        """Measure what waits between the producers and PostgreSQL."""
        return read_backlog(self.redis, self.spool, self.clock.now())

    def audit_custody(self) -> Custody:
        """Return what signs the log's heads and copies it to the backup sink, for one audit worker."""
        settings = self.settings
        checkpointer = Checkpointer(
            self.engine,
            self.checkpoint_signer,
            self.clock,
            timedelta(seconds=settings.audit_checkpoint_interval_seconds),
            settings.audit_checkpoint_rows,
        )
        sink = self._audit_sink
        exporter = None if sink is None else SinkExporter(self.engine, sink, self.clock)
        return Custody(checkpointer, exporter, self.clock, settings.audit_sink_timeout_seconds)

    @cached_property
    def checkpoint_signer(self) -> Signer:
        """Signs checkpoints and tombstones; only audit workers have its key."""
        return Signer(KeySet.load(self.settings.signing_keys_dir / CHECKPOINT_PRIVATE_KEYS))

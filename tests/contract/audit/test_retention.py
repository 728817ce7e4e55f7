"""How the log ends: months are archived and dropped, keys destroyed, and legal holds stop both."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, insert, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType, new_event_id
from techdeck_tasks.audit.models import AuditTombstone
from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.finding import Finding, Verdict, VerifyReport
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.sink_export import SinkExporter
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.tombstone import Tombstone, row_of
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.reading.reader import AuditReader
from techdeck_tasks.audit.reading.search import BlindIndexes
from techdeck_tasks.audit.retention.archive import Archive
from techdeck_tasks.audit.retention.erase import Eraser, ErasureScope
from techdeck_tasks.audit.retention.holds import HeldError, HoldScope, HoldStore
from techdeck_tasks.audit.retention.prune import Pruner
from techdeck_tasks.audit.sealing import Opener, SealedEvent, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ServiceUnavailableError, ValidationError
from techdeck_tasks.keyring import (
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    CHECKPOINT_PRIVATE_KEYS,
    CHECKPOINT_PUBLIC_KEYS,
    KeySet,
)
from techdeck_tasks.testing.clock import FakeClock

if TYPE_CHECKING:
    from tests.contract.audit.conftest import NewEvent, Trail

OLD = date(2018, 3, 1)
SIX_YEARS = 2190
At = Callable[..., SealedEvent]


def _moment(day: date, hour: int = 12) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


@pytest.fixture
def at(sealer: Sealer, new_event: NewEvent) -> At:
    """Seals an event that happened on a day."""

    def at(day: date, producer: Sealer = sealer, **values: object) -> SealedEvent:
        event_id = new_event_id(time_ns=int(_moment(day).timestamp()) * 10**9)
        return producer.seal(new_event(event_id=event_id, retention_days=SIX_YEARS, **values))

    return at


def _write(engine: Engine, name: str, *events: SealedEvent) -> None:
    """Write events when they happened: nobody takes them years later."""
    for event in events:
        AuditWriter(engine, name, FakeClock(event.record.occurred_at)).write([event])


@pytest.fixture
def signer(keys_dir: Path) -> Signer:
    return Signer(KeySet.load(keys_dir.parent / "signer" / CHECKPOINT_PRIVATE_KEYS))


@pytest.fixture
def checkpointer(engine: Engine, signer: Signer) -> Checkpointer:
    return Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 1000)


@pytest.fixture
def public_keys(keys_dir: Path) -> KeySet:
    return KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def archive(folder: Path) -> Archive:
    return Archive(folder.as_uri())


@pytest.fixture
def pruner(engine: Engine, archive: Archive, signer: Signer, trail: Trail) -> Pruner:
    return Pruner(engine, archive, lambda: signer, trail, SystemClock(), retention_days=SIX_YEARS)


@pytest.fixture
def holds(engine: Engine, trail: Trail, blind_indexes: BlindIndexes) -> HoldStore:
    return HoldStore(engine, trail, SystemClock(), SIX_YEARS, blind_indexes)


@pytest.fixture
def log(engine: Engine, at: At, checkpointer: Checkpointer) -> Engine:
    """Two old months and a newer one, in two chains, under checkpoints."""
    days = (OLD, OLD.replace(day=2), OLD.replace(month=4), datetime.now(UTC).date())
    events = [at(day, subject_id=f"patient-{number}") for number, day in enumerate(days)]
    _write(engine, "audit@one", events[0], events[2])
    _write(engine, "audit@two", events[1], events[3])
    checkpointer.make()
    return engine


Check = Callable[..., set[Verdict]]


@pytest.fixture
def check(engine: Engine, public_keys: KeySet) -> Check:
    """Verifies, and returns what was found."""

    def check(archive: Archive | None = None) -> set[Verdict]:
        report = verify(engine, timedelta(0), keys=public_keys, archive=archive)
        return {finding.verdict for finding in _besides_the_triggers(report)}

    return check


def _besides_the_triggers(report: VerifyReport) -> tuple[Finding, ...]:
    """Leave out the triggers that an attack of these tests switched off."""
    return tuple(finding for finding in report.findings if "the trigger refuse_" not in finding.detail)


def _months(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        names = connection.execute(
            text("SELECT relname FROM pg_class WHERE relname ~ '^audit_event_p[0-9]{6}$'")
        )
        return {name.removeprefix("audit_event_p") for name in names.scalars()}


# -- pruning ----------------------------------------------------------------------------------------------


def test_months_past_their_retention_are_archived_and_dropped_and_the_log_still_verifies(
    log: Engine, pruner: Pruner, archive: Archive, check: Check, trail: Trail
) -> None:
    before = _months(log)
    assert [(due.month, due.rows) for due in pruner.due()] == [(OLD, 2), (OLD.replace(month=4), 1)]
    tombstones = pruner.prune_due("officer")
    assert [(stone.month, stone.rows, stone.made_by) for stone in tombstones] == [
        (OLD, 2, "officer"),
        (OLD.replace(month=4), 1, "officer"),
    ]
    assert before - _months(log) == {"201803", "201804"}
    assert len(list(archive.rows(OLD))) == 2
    assert check(archive) == set()
    assert [(event.operation, event.outcome) for event in trail.events] == [
        ("prune", "2018-03"),
        ("prune", "2018-04"),
    ]
    assert pruner.due() == []


def test_what_was_archived_is_read_with_the_readers_key_and_the_reading_is_on_record(
    log: Engine, pruner: Pruner, archive: Archive, trail: Trail, opener: Opener
) -> None:
    pruner.prune(OLD, "officer")
    with AuditReader(log, trail, opener, "officer").archived(archive, OLD) as entries:
        messages = [entry.document["message"] for entry in entries if entry.document]
    assert messages == ["the importer failed"] * 2
    assert trail.events[-1].operation == "read_archive"
    with AuditReader(log, trail, None, "officer").archived(archive, OLD) as entries:
        assert [entry.document for entry in entries] == [None, None]


def test_a_month_with_a_row_that_must_stay_stays(log: Engine, pruner: Pruner) -> None:
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event DISABLE TRIGGER USER"))
        connection.execute(
            text("UPDATE audit_event SET retention_days = 36500 WHERE writer_id = 'audit@one'")
        )
    assert [due.month for due in pruner.due()] == []
    with pytest.raises(ValidationError, match="whose retention is not over"):
        pruner.prune(OLD, "officer")
    with pytest.raises(ValidationError, match="has no month 2001-01"):
        pruner.prune(date(2001, 1, 1), "officer")


def test_without_an_archive_nothing_is_dropped(log: Engine, signer: Signer, trail: Trail) -> None:
    pruner = Pruner(log, None, lambda: signer, trail, SystemClock(), retention_days=SIX_YEARS)
    with pytest.raises(ValidationError, match="TECHDECK_AUDIT_ARCHIVE_URL"):
        pruner.prune(OLD, "officer")
    assert "201803" in _months(log)


def test_what_cannot_be_recorded_is_not_dropped(log: Engine, pruner: Pruner, trail: Trail) -> None:
    trail.away = True
    with pytest.raises(AuditUnavailableError):
        pruner.prune(OLD, "officer")
    assert "201803" in _months(log)


class _Stopped(Exception):  # noqa: N818 - stands for a kill, which is no error
    pass


@pytest.mark.parametrize("step", ["archived", "recorded", "signed"])
def test_a_kill_between_any_two_steps_loses_nothing_and_a_repeat_finishes(
    log: Engine, archive: Archive, signer: Signer, trail: Trail, check: Check, step: str
) -> None:
    class Killed:
        def record(self, event: AuditEvent) -> None:
            trail.record(event)
            raise _Stopped

    class KilledArchive(Archive):
        def digest(self, month: date) -> bytes:
            raise _Stopped

    def killed_signer() -> Signer:
        raise _Stopped

    killed = Pruner(
        log,
        KilledArchive(archive._folder._url) if step == "archived" else archive,
        killed_signer if step == "signed" else lambda: signer,
        Killed() if step == "recorded" else trail,
        SystemClock(),
        retention_days=SIX_YEARS,
    )
    with pytest.raises(_Stopped):
        killed.prune(OLD, "officer")
    assert "201803" in _months(log)
    assert check(archive) == set()
    again = Pruner(log, archive, lambda: signer, trail, SystemClock(), retention_days=SIX_YEARS)
    again.prune(OLD, "officer")
    assert "201803" not in _months(log)
    assert check(archive) == set()


def test_an_archive_that_does_not_read_as_it_was_written_stops_the_pruning(
    log: Engine, archive: Archive, signer: Signer, trail: Trail
) -> None:
    class Lossy(Archive):
        def digest(self, month: date) -> bytes:
            return bytes(32)

    lossy = Lossy(archive._folder._url)
    pruner = Pruner(log, lossy, lambda: signer, trail, SystemClock(), retention_days=SIX_YEARS)
    with pytest.raises(ServiceUnavailableError, match="does not read as it was written"):
        pruner.prune(OLD, "officer")
    assert "201803" in _months(log)


def test_a_reader_in_the_way_is_not_waited_for_without_end(log: Engine, pruner: Pruner) -> None:
    with log.connect() as reading:
        reading.execute(text("SELECT count(*) FROM audit_event"))
        with pytest.raises(ServiceUnavailableError):
            pruner.prune(OLD, "officer")
    assert "201803" in _months(log)
    pruner.prune(OLD, "officer")


def test_a_changed_or_missing_archive_is_named(
    log: Engine, pruner: Pruner, archive: Archive, folder: Path, check: Check
) -> None:
    pruner.prune(OLD, "officer")
    (file,) = folder.glob("*.gz")
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(lines[:-1])))
    assert check(archive) == {Verdict.ARCHIVE_DIFFERS}
    file.unlink()
    assert check(archive) == {Verdict.ARCHIVE_DIFFERS}
    file.write_bytes(whole)
    assert check(archive) == set()


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (None, Verdict.TOMBSTONE_LOST),
        (b"{}", Verdict.TOMBSTONE_FORGED),
        (b"\xff", Verdict.TOMBSTONE_FORGED),
        ("other month", Verdict.TOMBSTONE_FORGED),
        ("other key", Verdict.TOMBSTONE_FORGED),
        ("other signature", Verdict.TOMBSTONE_FORGED),
    ],
)
def test_a_lost_or_forged_tombstone_beside_an_archive_is_named(
    log: Engine,
    pruner: Pruner,
    archive: Archive,
    folder: Path,
    check: Check,
    content: bytes | str | None,
    verdict: Verdict,
) -> None:
    pruner.prune_due("officer")
    assert check(archive) == set()
    own, other = (folder / f"audit-{month}.tombstone.json" for month in ("2018-03", "2018-04"))
    document = json.loads(own.read_text())
    if content is None:
        own.unlink()
    elif isinstance(content, bytes):
        own.write_bytes(content)
    elif content == "other month":
        own.write_bytes(other.read_bytes())
    elif content == "other key":
        own.write_text(json.dumps(document | {"key_id": "unknown"}))
    else:
        signature = json.loads(other.read_text())["signature"]
        own.write_text(json.dumps(document | {"signature": signature}))
    assert check(archive) == {verdict}


def test_a_tombstone_that_is_beside_the_archive_alone_is_named(
    log: Engine, pruner: Pruner, archive: Archive, check: Check
) -> None:
    pruner.prune(OLD, "officer")
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_tombstone DISABLE TRIGGER USER"))
        connection.execute(text("DELETE FROM audit_tombstone"))
    assert Verdict.TOMBSTONE_LOST in check(archive)
    assert Verdict.TOMBSTONE_LOST not in check()


def test_months_of_before_tombstones_had_copies_are_counted_and_no_finding(
    log: Engine, pruner: Pruner, archive: Archive, folder: Path, signer: Signer, public_keys: KeySet
) -> None:
    stone = replace(pruner.prune(OLD, "officer"), in_archive=False)
    signed = signer.sign(stone.encode())
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_tombstone DISABLE TRIGGER USER"))
        connection.execute(update(AuditTombstone).values(**row_of(stone, signed)))
    (folder / "audit-2018-03.tombstone.json").unlink()
    report = verify(log, timedelta(0), keys=public_keys, archive=archive)
    assert (_besides_the_triggers(report), report.old_tombstones) == ((), 1)
    assert len(list(archive.rows(OLD))) == stone.rows


def test_losses_that_a_dropped_month_told_of_stay_explained(
    engine: Engine,
    new_sealer: Callable[[], Sealer],
    at: At,
    pruner: Pruner,
    check: Check,
    checkpointer: Checkpointer,
) -> None:
    producer = new_sealer()
    first, _, last = (at(OLD, producer), at(OLD, producer), at(OLD.replace(month=4), producer))
    gap = at(OLD, producer, event_type=EventType.GAP, outcome="lost 1: 2")
    _write(engine, "audit@one", first, gap, last)
    with pytest.raises(ValidationError, match="under no checkpoint"):
        pruner.prune(OLD, "officer")
    checkpointer.make()
    assert check() == set()
    pruner.prune(OLD, "officer")
    assert Verdict.PRODUCER_GAP not in check()


@pytest.mark.parametrize("then", [OLD.replace(month=5), OLD.replace(year=2019)])
def test_a_producer_that_was_silent_since_a_dropped_month_and_goes_on_has_no_gap(
    engine: Engine,
    new_sealer: Callable[[], Sealer],
    at: At,
    pruner: Pruner,
    check: Check,
    checkpointer: Checkpointer,
    then: date,
) -> None:
    producer = new_sealer()
    _write(engine, "audit@one", at(OLD, producer), at(OLD, producer), at(OLD.replace(month=4), producer))
    checkpointer.make()
    pruner.prune_due("officer")
    _write(engine, "audit@one", at(then, producer))
    checkpointer.make()
    assert check() == set()
    at(then, producer)
    _write(engine, "audit@one", at(then, producer))
    checkpointer.make()
    assert check() == {Verdict.PRODUCER_GAP}, "what really is missing still shows"


# -- holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        HoldScope(),
        HoldScope(since=_moment(OLD), until=_moment(OLD.replace(day=3))),
        HoldScope(subject="patient-1"),
    ],
)
def test_a_hold_keeps_its_month_until_it_is_released(
    log: Engine,
    pruner: Pruner,
    holds: HoldStore,
    check: Check,
    scope: HoldScope,
    trail: Trail,
    sealer: Sealer,
    checkpointer: Checkpointer,
) -> None:
    hold = holds.add(scope, reason="case 17", by="counsel")
    with pytest.raises(HeldError, match=rf"{hold.hold_id} \(case 17\)"):
        pruner.prune(OLD, "officer")
    assert "201803" in _months(log)
    assert pruner.due()[0].holds == (hold,)
    holds.release(str(hold.hold_id), reason="case closed", by="counsel")
    assert check() == {Verdict.HOLD_REMOVED}, "released, and not on record yet"
    AuditWriter(log, "audit@one", SystemClock()).write([sealer.seal(event) for event in trail.events])
    checkpointer.make()
    pruner.prune(OLD, "officer")
    assert check() == set()


@pytest.mark.parametrize(
    "scope",
    [
        HoldScope(since=_moment(OLD.replace(month=4))),
        HoldScope(subject="nobody"),
        HoldScope(pipeline_id="other"),
    ],
)
def test_a_hold_on_something_else_keeps_no_month(
    log: Engine, pruner: Pruner, holds: HoldStore, check: Check, scope: HoldScope
) -> None:
    holds.add(scope, reason="case 17", by="counsel")
    pruner.prune(OLD, "officer")
    assert check() == set()


def test_holds_are_recorded_before_they_take_effect_and_say_who_and_why(
    engine: Engine, holds: HoldStore, trail: Trail
) -> None:
    hold = holds.add(HoldScope(user="dr. who"), reason="case 17 of 555-12-3456", by="counsel")
    assert "555-12-3456" not in hold.reason
    assert "dr. who" not in str(hold.to_dict())
    trail.away = True
    with pytest.raises(AuditUnavailableError):
        holds.release(str(hold.hold_id), reason="closed", by="counsel")
    with pytest.raises(AuditUnavailableError):
        holds.add(HoldScope(), reason="case 18", by="counsel")
    assert [found.released_at for found in holds.search()] == [None]
    trail.away = False
    holds.release(str(hold.hold_id), reason="closed", by="counsel")
    assert [(event.operation, event.outcome) for event in trail.events] == [
        ("hold_add", f"{hold.hold_id} {hold.fingerprint}"),
        ("hold_release", str(hold.hold_id)),
    ]
    assert holds.search() == []
    assert [found.released_by for found in holds.search(active=None)] == ["counsel"]
    with pytest.raises(ValidationError, match="released by counsel already"):
        holds.release(str(hold.hold_id), reason="again", by="counsel")
    with pytest.raises(ValidationError, match="no legal hold 'x'"):
        holds.release("x", reason="again", by="counsel")
    with pytest.raises(ValidationError, match="needs a reason"):
        holds.add(HoldScope(), reason=" ", by="counsel")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_hold",
        "TRUNCATE audit_hold",
        "UPDATE audit_hold SET occurred_until = now()",
        "UPDATE audit_hold SET reason = 'none', released_at = now(), released_by = 'x'",
        "SELECT techdeck_audit_drop_month('2018-03-01')",
    ],
)
def test_the_database_refuses_to_forget_a_hold_or_to_drop_a_month_past_the_rules(
    log: Engine, holds: HoldStore, statement: str
) -> None:
    holds.add(HoldScope(), reason="case 17", by="counsel")
    with pytest.raises(ProgrammingError), log.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize("run", ["a\0b", "\udcff"])
def test_a_hold_on_a_run_that_no_row_can_name_is_refused(run: str) -> None:
    with pytest.raises(ValidationError, match="lone surrogates"):
        HoldScope(pipeline_id=run)


def test_a_folder_that_no_driver_reaches_is_named_without_its_password() -> None:
    with pytest.raises(ValidationError, match="'nosuch'") as caught:
        SegmentStore("nosuch://me:geheim@host/folder").numbers()
    assert "geheim" not in str(caught.value)


# -- attacks on retention by who may do everything in the database, and has the signing key ----------------


def test_a_month_dropped_under_a_hold_with_a_signed_tombstone_is_named(
    log: Engine,
    archive: Archive,
    signer: Signer,
    trail: Trail,
    holds: HoldStore,
    pruner: Pruner,
    check: Check,
) -> None:
    holds.add(HoldScope(until=_moment(OLD.replace(day=9))), reason="case 17", by="counsel")
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_hold DISABLE TRIGGER USER"))
        connection.execute(text("CREATE TABLE hidden AS SELECT * FROM audit_hold"))
        connection.execute(text("DELETE FROM audit_hold"))
    pruner.prune(OLD, "intruder")
    with log.begin() as connection:
        connection.execute(text("INSERT INTO audit_hold SELECT * FROM hidden"))
    assert check(archive) == {Verdict.PRUNED_UNDER_HOLD}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("scope", [HoldScope(subject="patient-0"), HoldScope(pipeline_id="run-1")])
def test_a_month_of_a_held_person_or_run_that_was_dropped_is_named(
    log: Engine,
    at: At,
    sealer: Sealer,
    trail: Trail,
    holds: HoldStore,
    pruner: Pruner,
    checkpointer: Checkpointer,
    check: Check,
    scope: HoldScope,
    *,
    late: bool,
) -> None:
    rows = at(OLD, subject_id="patient-0", pipeline_id="run-1")
    if not late:
        _write(log, "audit@one", rows)
    hold = holds.add(scope, reason="case 17", by="counsel")
    if late:
        _write(log, "audit@one", rows)
        holds.note_months("schedule")
    earlier = FakeClock(datetime.now(UTC) - timedelta(minutes=2))
    AuditWriter(log, "audit@one", earlier).write([sealer.seal(event) for event in trail.events])
    checkpointer.make()
    told = [event.outcome or "" for event in trail.events if event.operation == "hold_covers"]
    assert {outcome.split()[0] for outcome in told} == {str(hold.hold_id)}
    assert {month for outcome in told for month in outcome.split()[1:]} == {"2018-03"}
    seen = len(trail.events)
    holds.note_months("schedule")
    again = [event for event in trail.events[seen:] if "2018-03" in (event.outcome or "")]
    assert not again, "what is on record is not recorded again"
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_hold DISABLE TRIGGER USER"))
        connection.execute(text("CREATE TABLE hidden AS SELECT * FROM audit_hold"))
        connection.execute(text("DELETE FROM audit_hold"))
    pruner.prune_due("intruder")
    with log.begin() as connection:
        connection.execute(text("INSERT INTO audit_hold SELECT * FROM hidden"))
    assert check() == {Verdict.PRUNED_UNDER_HOLD}


def test_a_hold_that_the_log_tells_of_and_that_is_gone_is_named(
    engine: Engine,
    sealer: Sealer,
    trail: Trail,
    holds: HoldStore,
    checkpointer: Checkpointer,
    check: Check,
) -> None:
    holds.add(HoldScope(), reason="case 17", by="counsel")
    earlier = FakeClock(datetime.now(UTC) - timedelta(minutes=2))
    AuditWriter(engine, "audit@one", earlier).write([sealer.seal(event) for event in trail.events])
    checkpointer.make()
    assert check() == set()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_hold DISABLE TRIGGER USER"))
        connection.execute(text("DELETE FROM audit_hold"))
    assert check() == {Verdict.HOLD_REMOVED}


@pytest.mark.parametrize(
    "change",
    ["occurred_until = '2001-01-01'", "created_at = now()", "pipeline_id = 'x'", "occurred_from = now()"],
)
def test_a_hold_that_was_changed_is_named(
    engine: Engine,
    sealer: Sealer,
    trail: Trail,
    holds: HoldStore,
    checkpointer: Checkpointer,
    check: Check,
    change: str,
) -> None:
    holds.add(HoldScope(until=datetime(2020, 1, 1, tzinfo=UTC)), reason="case 17", by="counsel")
    earlier = FakeClock(datetime.now(UTC) - timedelta(minutes=2))
    AuditWriter(engine, "audit@one", earlier).write([sealer.seal(event) for event in trail.events])
    checkpointer.make()
    assert check() == set()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_hold DISABLE TRIGGER USER"))
        if "occurred_from" in change:
            connection.execute(text("UPDATE audit_hold SET occurred_until = NULL"))
        connection.execute(text(f"UPDATE audit_hold SET {change}"))
    assert check() == {Verdict.HOLD_CHANGED}


# -- erasure ----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> SegmentStore:
    return SegmentStore((tmp_path / "sink").as_uri())


@pytest.fixture
def eraser(
    engine: Engine, trail: Trail, blind_indexes: BlindIndexes, store: SegmentStore, archive: Archive
) -> Eraser:
    return Eraser(
        engine, trail, SystemClock(), SIX_YEARS, blind_indexes=blind_indexes, sink=store, archive=archive
    )


def _days(first: date, last: date) -> ErasureScope:
    return ErasureScope(tenant="clinic", since=_moment(first, 0), until=_moment(last, 0))


def test_erasing_a_period_destroys_its_keys_everywhere_and_the_log_still_verifies(
    log: Engine,
    eraser: Eraser,
    store: SegmentStore,
    opener: Opener,
    trail: Trail,
    check: Check,
    sealer: Sealer,
    checkpointer: Checkpointer,
) -> None:
    SinkExporter(log, store, FakeClock()).catch_up()
    erased = eraser.erase(_days(OLD, OLD.replace(day=2)), reason="request 4", by="officer")
    assert (len(erased.keys), erased.rows, erased.shared_keys) == (1, 1, 0)
    entries = {
        entry.record.occurred_at.date(): entry
        for entry in AuditReader(log, trail, opener, "officer").search()
    }
    assert entries[OLD].document is None
    assert entries[OLD].erased_at is not None
    assert entries[OLD].problem is None
    assert entries[OLD.replace(day=2)].document is not None
    assert not store.has_key(str(erased.keys[0]))
    # Nor does whoever copies to the sink bring it back.
    SinkExporter(log, store, FakeClock()).catch_up()
    assert not store.has_key(str(erased.keys[0]))
    assert trail.events[-2].operation == "erase"
    assert check() == {Verdict.DATA_KEY_REMOVED}, "its record is not in the log yet"
    AuditWriter(log, "audit@one", SystemClock()).write([sealer.seal(event) for event in trail.events])
    checkpointer.make()
    assert check() == set()


def test_a_data_key_destroyed_beside_those_that_an_erasure_tells_of_is_named(
    log: Engine,
    eraser: Eraser,
    trail: Trail,
    check: Check,
    sealer: Sealer,
    checkpointer: Checkpointer,
) -> None:
    eraser.erase(_days(OLD, OLD.replace(day=2)), reason="request 4", by="officer")
    AuditWriter(log, "audit@one", SystemClock()).write([sealer.seal(event) for event in trail.events])
    checkpointer.make()
    with log.begin() as connection:
        connection.execute(
            text(
                "UPDATE audit_data_key SET sealed_key = '', erased_at ="
                " (SELECT max(erased_at) FROM audit_data_key)"
                " WHERE key_id = (SELECT key_id FROM audit_event WHERE occurred_at < '2018-03-03'"
                " ORDER BY occurred_at DESC LIMIT 1)"
            )
        )
    assert check() == {Verdict.DATA_KEY_REMOVED}


def test_a_hold_released_without_a_record_before_it_was_set_is_named(
    log: Engine, pruner: Pruner, trail: Trail, holds: HoldStore, check: Check
) -> None:
    # Back in a month whose records retention has dropped, where no record of it need be.
    pruner.prune(OLD, "officer")
    holds.add(HoldScope(), reason="case 17", by="counsel")
    with log.begin() as connection:
        connection.execute(
            text("UPDATE audit_hold SET released_at = '2018-03-05', released_by = 'x', release_reason = 'y'")
        )
    assert check() == {Verdict.HOLD_REMOVED}


@pytest.mark.parametrize("column", ["created_at", "occurred_from", "released_at", "person_indexes"])
def test_a_hold_whose_values_cannot_be_is_named_and_stops_pruning(
    column: str, log: Engine, pruner: Pruner, holds: HoldStore, check: Check
) -> None:
    holds.add(HoldScope(subject="patient-0"), reason="case 17", by="counsel")
    value = "'{NULL}'" if column == "person_indexes" else "'infinity'"
    if column == "released_at":
        value += ", released_by = 'x'"
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_hold DISABLE TRIGGER USER"))
        connection.execute(text(f"UPDATE audit_hold SET {column} = {value}"))
    assert check() == {Verdict.HOLD_CHANGED}
    months = _months(log)
    with pytest.raises((DBAPIError, TypeError)):
        pruner.prune(OLD, "officer")
    assert _months(log) == months


def test_keys_that_are_still_in_use_are_not_erased(log: Engine, eraser: Eraser) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    scope = ErasureScope(tenant="clinic", since=_moment(OLD), until=tomorrow)
    with pytest.raises(ValidationError, match="today's keys are still sealing"):
        eraser.erase(scope, reason="request 4", by="officer")


def test_a_late_event_does_not_bring_a_destroyed_key_back(
    engine: Engine, at: At, eraser: Eraser, opener: Opener, trail: Trail
) -> None:
    early, late = at(OLD), at(OLD)
    _write(engine, "audit@one", early)
    eraser.erase(_days(OLD, OLD.replace(day=2)), reason="request 4", by="officer")
    _write(engine, "audit@two", late)
    documents = [entry.document for entry in AuditReader(engine, trail, opener, "officer").search()]
    assert documents == [None, None]


def test_keys_that_seal_other_documents_stay_and_are_counted(log: Engine, eraser: Eraser) -> None:
    scope = ErasureScope(
        tenant="clinic", since=_moment(OLD, 0), until=_moment(OLD.replace(day=2), 0), subject="patient-0"
    )
    assert eraser.plan(scope).rows == 1
    with pytest.raises(ValidationError, match="needs a reason"):
        eraser.erase(scope, reason="", by="officer")


def test_one_persons_documents_are_erased_alone_where_persons_have_keys_of_their_own(
    engine: Engine,
    keys_dir: Path,
    at: At,
    eraser: Eraser,
    opener: Opener,
    trail: Trail,
    checkpointer: Checkpointer,
) -> None:
    public, blind = (KeySet.load(keys_dir / name) for name in (AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS))
    scope = ErasureScope(
        tenant="clinic", since=_moment(OLD, 0), until=_moment(OLD.replace(day=2), 0), subject="ann"
    )
    for number, own in enumerate((False, True)):
        producer = Sealer(public, blind, "clinic", keys_per_subject=own)
        events = [at(OLD, producer, subject_id=person) for person in ("ann", "bob", "ann")]
        _write(engine, f"audit@{number}", *events)
    erased = eraser.erase(scope, reason="request 4", by="officer")
    assert (len(erased.keys), erased.rows, erased.shared_keys, erased.shared_rows) == (1, 2, 1, 2)
    entries = AuditReader(engine, trail, opener, "officer").search()
    assert sum(entry.document is None for entry in entries) == 2


def test_what_is_held_is_not_erased_archived_rows_included(
    log: Engine,
    eraser: Eraser,
    pruner: Pruner,
    holds: HoldStore,
    opener: Opener,
    trail: Trail,
    archive: Archive,
) -> None:
    pruner.prune(OLD, "officer")
    hold = holds.add(HoldScope(subject="patient-0"), reason="case 17", by="counsel")
    with pytest.raises(HeldError, match="case 17"):
        eraser.erase(_days(OLD, OLD.replace(day=3)), reason="request 4", by="officer")
    holds.release(str(hold.hold_id), reason="closed", by="counsel")
    assert eraser.erase(_days(OLD, OLD.replace(day=3)), reason="request 4", by="officer").rows == 2
    with AuditReader(log, trail, opener, "officer").archived(archive, OLD) as entries:
        assert [(entry.document, entry.erased_at is None) for entry in entries] == [(None, False)] * 2


# -- what must not go wrong between processes ----------------------------------------------------


def test_a_second_pruner_does_not_write_an_empty_archive_over_the_first_ones(
    log: Engine, pruner: Pruner, archive: Archive, signer: Signer
) -> None:
    with log.begin() as connection:
        written = archive.write(connection, OLD)
    failures: list[Exception] = []

    def prune_too() -> None:
        try:
            pruner.prune(OLD, "second")
        except ValidationError as error:
            failures.append(error)

    second = threading.Thread(target=prune_too)
    with log.begin() as first:
        tombstone = Tombstone.survey(
            first, OLD, archive_digest=written.digest, made_at=datetime.now(UTC), made_by="first"
        )
        first.execute(insert(AuditTombstone).values(**row_of(tombstone, signer.sign(tombstone.encode()))))
        first.execute(text("SELECT techdeck_audit_drop_month(:month)"), {"month": OLD})
        second.start()
        _until_somebody_waits(log)
    second.join()
    assert "has no month" in str(failures)
    assert sum(1 for _ in archive.rows(OLD)) == written.rows > 0


def _until_somebody_waits(engine: Engine) -> None:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 10
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(waiting).scalar_one():
            assert time.monotonic() < deadline, "nobody waits"


def test_a_row_of_the_longest_retention_there_is_keeps_its_month_and_no_other(
    log: Engine, pruner: Pruner, sealer: Sealer, new_event: NewEvent
) -> None:
    moment = _moment(OLD.replace(year=2017))
    event_id = new_event_id(time_ns=int(moment.timestamp()) * 10**9)
    _write(log, "audit@one", sealer.seal(new_event(event_id=event_id, retention_days=2**31 - 1)))
    assert [due.month for due in pruner.due()] == [OLD, OLD.replace(month=4)]


def test_a_month_that_is_damaged_stays_and_stops_no_other(log: Engine, pruner: Pruner) -> None:
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE audit_event SET severity = 'low' WHERE occurred_at < '2018-04-01'"))
    with pytest.raises(ValidationError, match="techdeck audit verify"):
        pruner.prune_due("officer")
    assert [due.month for due in pruner.due()] == [OLD]


def test_a_segment_of_the_sink_is_not_written_again_without_its_rows(
    log: Engine, pruner: Pruner, store: SegmentStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SinkExporter(log, store, FakeClock()).catch_up()
    pruner.prune_due("officer")
    for segment in (tmp_path / "sink" / "segments").rglob("*.jsonl"):
        segment.unlink()
    SinkExporter(log, store, FakeClock()).catch_up()
    assert store.numbers() == set()
    assert "not in the database any more" in caplog.text


def test_a_month_stays_until_the_sink_has_its_rows(
    log: Engine, archive: Archive, signer: Signer, trail: Trail, store: SegmentStore
) -> None:
    pruner = Pruner(log, archive, lambda: signer, trail, SystemClock(), retention_days=SIX_YEARS, sink=store)
    with pytest.raises(ValidationError, match="backup sink lacks"):
        pruner.prune(OLD, "officer")
    SinkExporter(log, store, FakeClock()).catch_up()
    assert pruner.prune(OLD, "officer").rows == 2


def test_segments_that_are_lost_for_good_stop_no_month_that_somebody_answers_for(
    log: Engine, archive: Archive, signer: Signer, trail: Trail, store: SegmentStore, tmp_path: Path
) -> None:
    pruner = Pruner(log, archive, lambda: signer, trail, SystemClock(), retention_days=SIX_YEARS, sink=store)
    SinkExporter(log, store, FakeClock()).catch_up()
    pruner.prune(OLD, "officer")
    assert "despite_sink" not in trail.events[-1].document
    for segment in (tmp_path / "sink" / "segments").rglob("*.jsonl"):
        segment.unlink()
    SinkExporter(log, store, FakeClock()).catch_up()
    april = OLD.replace(month=4)
    with pytest.raises(ValidationError, match="--despite-sink"):
        pruner.prune(april, "officer")
    pruner.prune(april, "officer", despite_sink="the bucket burned")
    assert "201804" not in _months(log)
    recorded = trail.events[-1].document
    assert (recorded["despite_sink"], recorded["lacking_segments"]) == ("the bucket burned", [1])


def test_a_hold_that_the_database_refuses_is_not_on_record(
    log: Engine, holds: HoldStore, trail: Trail
) -> None:
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_hold ADD CHECK (reason <> 'case 17')"))
    with pytest.raises(DBAPIError):
        holds.add(HoldScope(), reason="case 17", by="counsel")
    assert trail.events == []


@pytest.mark.parametrize(
    ("month", "scope", "why"),
    [
        (None, None, "kept longer"),
        (OLD, HoldScope(subject="patient-0"), "legal hold"),
        (OLD, HoldScope(since=_moment(OLD, 0), until=_moment(OLD)), "legal hold"),
        (OLD, HoldScope(pipeline_id="other"), None),
    ],
)
def test_the_database_itself_judges_whoever_has_a_tombstone(
    log: Engine,
    signer: Signer,
    holds: HoldStore,
    month: date | None,
    scope: HoldScope | None,
    why: str | None,
) -> None:
    month = month or datetime.now(UTC).date().replace(day=1)
    if scope is not None:
        holds.add(scope, reason="case 17", by="counsel")
    refused = nullcontext() if why is None else pytest.raises(ProgrammingError, match=why)
    with refused, log.begin() as connection:
        tombstone = Tombstone.survey(
            connection, month, archive_digest=b"", made_at=datetime.now(UTC), made_by="intruder"
        )
        connection.execute(
            insert(AuditTombstone).values(**row_of(tombstone, signer.sign(tombstone.encode())))
        )
        connection.execute(text("SELECT techdeck_audit_drop_month(:month)"), {"month": month})
    assert (f"{month:%Y%m}" in _months(log)) == (why is not None)


def test_of_two_who_release_a_hold_at_once_one_does_and_is_on_record(
    log: Engine, holds: HoldStore, blind_indexes: BlindIndexes, trail: Trail
) -> None:
    hold_id = str(holds.add(HoldScope(), reason="case 17", by="counsel").hold_id)
    failures: list[Exception] = []

    def release_too() -> None:
        try:
            holds.release(hold_id, reason="closed", by="second")
        except ValidationError as error:
            failures.append(error)

    class Slow:
        def record(self, event: AuditEvent) -> None:
            trail.record(event)
            second.start()
            _until_somebody_waits(log)

    second = threading.Thread(target=release_too)
    first = HoldStore(log, Slow(), SystemClock(), SIX_YEARS, blind_indexes)
    assert first.release(hold_id, reason="closed", by="first").released_by == "first"
    second.join()
    assert "released by first already" in str(failures)
    assert [event.user_id for event in trail.events if event.operation == "hold_release"] == ["first"]


def test_an_erasure_that_cannot_be_recorded_is_not_done(log: Engine, eraser: Eraser, trail: Trail) -> None:
    scope = _days(OLD, OLD.replace(day=2))
    trail.away = True
    with pytest.raises(AuditUnavailableError):
        eraser.erase(scope, reason="request 4", by="officer")
    trail.away = False
    with log.connect() as connection:
        assert connection.execute(text("SELECT count(erased_at) FROM audit_data_key")).scalar_one() == 0


def test_an_erasure_that_the_database_refuses_is_not_on_record(
    log: Engine, eraser: Eraser, trail: Trail
) -> None:
    with log.begin() as connection:
        connection.execute(text("ALTER TABLE audit_data_key ADD CHECK (erased_at IS NULL)"))
    with pytest.raises(DBAPIError):
        eraser.erase(_days(OLD, OLD.replace(day=2)), reason="request 4", by="officer")
    assert trail.events == []


def test_months_that_are_due_for_days_and_not_held_are_overdue(
    log: Engine, pruner: Pruner, holds: HoldStore
) -> None:
    april = OLD.replace(month=4)
    assert pruner.overdue() == [OLD, april]
    hold = holds.add(HoldScope(until=_moment(OLD)), reason="case 17", by="counsel")
    assert pruner.overdue() == [april]
    holds.release(str(hold.hold_id), reason="closed", by="counsel")
    pruner.prune(april, "officer")
    assert pruner.overdue() == [OLD]

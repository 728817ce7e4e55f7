"""Finding persons, going from page to page, and taking entries out."""

from __future__ import annotations

import csv
import io
import json
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Engine

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType, new_event_id
from techdeck_tasks.audit.reading.export import ExportFormat, private_file, write_entries
from techdeck_tasks.audit.reading.reader import EXPORT_BATCH, AuditReader
from techdeck_tasks.audit.reading.search import AuditFilter, BlindIndexes
from techdeck_tasks.audit.sealing import Opener, Sealer, blind_index
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ValidationError

NOW = datetime.now(UTC).replace(microsecond=0)
ROWS = EXPORT_BATCH + 50


@pytest.fixture(scope="module")
def log(
    databases: Callable[[], AbstractContextManager[Engine]],
    new_sealer: Callable[[], Sealer],
    new_event: Callable[..., AuditEvent],
) -> Iterator[Engine]:
    """More events than an export fetches at once, three each millisecond; none of the tests changes them."""
    sealer = new_sealer()
    first_ms = int(NOW.timestamp() * 1000) - ROWS

    def sealed(number: int) -> Any:
        return sealer.seal(
            new_event(
                event_id=new_event_id((first_ms + number // 3) * 10**6),
                error_id=f"error-{number}",
                outcome="retry" if number % 2 else "failed",
                task_name=f"lab.task_{number % 3}",
                user_id=f"user-{number % 50}",
                subject_id="jörg@example.org" if number == 7 else f"patient-{number}",
                hipaa_related=number % 2 == 0,
                document={
                    "message": "=HYPERLINK(1)" if number == 1 else f"message {number}",
                    "error_type": "builtins.ValueError",
                    "details": {"rows": number},
                    "context": {"n": number},
                    "response": {"error_id": f"error-{number}"},
                },
            )
        )

    with databases() as engine:
        AuditWriter(engine, "audit@one", SystemClock()).write([sealed(number) for number in range(ROWS)])
        yield engine


@pytest.fixture
def reader(log: Engine, trail: Any, opener: Opener, blind_indexes: BlindIndexes) -> AuditReader:
    return AuditReader(log, trail, opener, "officer", blind_indexes)


def _numbers(entries: Any) -> list[int]:
    return [int(entry.record.error_id.removeprefix("error-")) for entry in entries]


# -- persons ---------------------------------------------------------------------------------------------


def test_a_person_is_found_by_a_fingerprint_and_named_by_the_document(reader: AuditReader) -> None:
    (entry,) = reader.search(AuditFilter(subject="jörg@example.org"))
    assert entry.document is not None
    assert (entry.document["subject_id"], entry.document["user_id"]) == ("jörg@example.org", "user-7")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_person_is_found_however_the_letters_of_the_name_were_composed(
    form: Literal["NFC", "NFD"], reader: AuditReader
) -> None:
    typed = unicodedata.normalize(form, "jörg@example.org")
    assert _numbers(reader.search(AuditFilter(subject=typed))) == [7]


def test_a_user_and_a_subject_of_one_name_are_two_persons(reader: AuditReader) -> None:
    assert len(reader.search(AuditFilter(user="user-7"))) == ROWS // 50
    assert reader.search(AuditFilter(subject="user-7")) == []


def test_a_hit_of_the_index_whose_document_names_another_person_is_left_out(
    log: Engine, trail: Any, opener: Opener, keys_dir: Path, blind_indexes: BlindIndexes
) -> None:
    def colliding(what: str, value: str) -> list[bytes]:
        return [*blind_indexes(what, value), *blind_indexes(what, "patient-8")]

    reader = AuditReader(log, trail, opener, "officer", colliding)
    assert _numbers(reader.search(AuditFilter(subject="patient-9"))) == [9]


def test_rows_under_an_older_key_of_the_index_are_found_as_well(
    log: Engine, trail: Any, opener: Opener, blind_indexes: BlindIndexes
) -> None:
    def rotated(what: str, value: str) -> list[bytes]:
        return [blind_index(b"\1" * 32, "clinic", what, value), *blind_indexes(what, value)]

    assert _numbers(
        AuditReader(log, trail, opener, "o", rotated).search(AuditFilter(subject="patient-9"))
    ) == [9]


def test_without_the_keys_of_the_index_a_search_for_a_person_names_the_remedy(
    log: Engine, trail: Any, opener: Opener
) -> None:
    with pytest.raises(ValidationError, match="TECHDECK_KEYS_DIR"):
        AuditReader(log, trail, opener, "officer").search(AuditFilter(user="jane"))
    assert trail.events == []


def test_a_search_for_a_person_is_on_record_with_the_person(reader: AuditReader, trail: Any) -> None:
    reader.search(AuditFilter(subject="patient-9"))
    (event,) = trail.events
    assert (event.user_id, event.subject_id) == ("officer", "patient-9")


def test_a_reader_without_the_private_key_finds_persons_by_the_index_alone(
    log: Engine, trail: Any, blind_indexes: BlindIndexes
) -> None:
    (entry,) = AuditReader(log, trail, None, "operator", blind_indexes).search(
        AuditFilter(subject="patient-9")
    )
    assert entry.document is None


# -- filters by name -------------------------------------------------------------------------------------


def test_the_specifications_names_and_texts_are_understood(reader: AuditReader) -> None:
    wanted: dict[str, Any] = {
        "timestamp_start": (NOW - timedelta(hours=1)).isoformat(),
        "hipaa_related": "true",
    }
    wanted = {**wanted, "timestamp_end": NOW, "outcome": None}
    logs = reader.get_audit_logs(wanted, limit=4)
    assert {int(str(log["error_id"]).removeprefix("error-")) % 2 for log in logs} == {0}
    assert reader.get_audit_logs(wanted, limit=3, offset=1) == logs[1:]


def test_a_log_entry_has_the_specifications_keys(reader: AuditReader) -> None:
    (entry,) = reader.get_audit_logs({"error_id": "error-4"})
    assert json.loads(json.dumps(entry)) == entry
    assert entry.pop("audit_id")
    assert entry.pop("timestamp").endswith("+00:00")
    assert entry == {
        "event_type": "error_handling",
        "error_id": "error-4",
        "error_code": None,
        "error_message": "message 4",
        "error_classification": {
            "error_code": None,
            "error_type": "builtins.ValueError",
            "severity": "high",
            "service": "lab",
            "operation": "import",
            "details": {"rows": 4},
        },
        "response_generated": {"error_id": "error-4"},
        "context": {"n": 4},
        "hipaa_compliance": {
            "hipaa_related": True,
            "compliance_status": "violation",
            "requires_review": True,
            "notification_required": False,
        },
        "retention_period_days": 2190,
    }


@pytest.mark.parametrize(
    ("filters", "complaint"),
    [
        ({"colour": "red"}, "no filter 'colour'; use error_code"),
        ({"since": "yesterday"}, "'since' must be a date"),
        ({"since": "2026-01-31T08:00:00"}, "time zone"),
        ({"since": 5}, "'since' must be a date"),
        ({"timestamp_start": "2026-01-01", "since": "2026-01-01"}, "'since' twice"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "'since' must be before 'until'"),
        ({"severity": "dreadful"}, "no severity 'dreadful'; use low, medium, high, critical"),
        ({"event_type": "party"}, "no event_type 'party'"),
        ({"hipaa_related": "perhaps"}, "true or false"),
        ({"service": 5}, "text as 'service'"),
        ({"service": "a\0b"}, "without NUL"),
        ({"stage": "\ud800"}, "surrogates"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_and_named(
    filters: dict[str, Any], complaint: str, reader: AuditReader, trail: Any
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        reader.get_audit_logs(filters)
    assert trail.events == []


def test_a_bare_date_is_its_midnight_in_utc_and_other_zones_are_converted() -> None:
    wanted = AuditFilter.from_mapping({"since": "2026-01-31", "until": "2026-02-01T02:00:00+02:00"})
    assert (wanted.since, wanted.until) == (
        datetime(2026, 1, 31, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
    )


# -- pages -----------------------------------------------------------------------------------------------


def test_cursors_lead_through_everything_once_also_within_one_millisecond(reader: AuditReader) -> None:
    seen: list[int] = []
    cursor = None
    while True:
        page = reader.page(limit=100, cursor=cursor)
        seen += _numbers(page.entries)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == ROWS
    assert sorted(seen) == list(range(ROWS))
    assert [number // 3 for number in seen] == sorted((number // 3 for number in seen), reverse=True)


def test_a_page_that_ends_exactly_at_the_end_is_the_last(reader: AuditReader) -> None:
    assert reader.page(AuditFilter(user="user-7"), limit=ROWS // 50).next_cursor is None


def test_new_entries_shift_no_page(
    engine: Engine, trail: Any, opener: Opener, seal: Callable[[int], Any]
) -> None:
    writer = AuditWriter(engine, "audit@one", SystemClock())
    writer.write(seal(4))
    reader = AuditReader(engine, trail, opener, "officer")
    first = reader.page(limit=2)
    writer.write(seal(4))
    second = reader.page(limit=2, cursor=first.next_cursor)
    ids = {entry.record.event_id for entry in (*first.entries, *second.entries)}
    assert len(ids) == 4
    assert second.next_cursor is None


@pytest.mark.parametrize("token", ["", "nonsense", "A" * 32, "é" * 32, "=" * 32, "A" * 5000])
def test_a_forged_cursor_is_refused_with_the_remedy(token: str, reader: AuditReader, trail: Any) -> None:
    with pytest.raises(ValidationError, match="next_cursor"):
        reader.page(cursor=token)
    assert trail.events == []


def test_a_cursor_of_another_search_is_refused(reader: AuditReader) -> None:
    token = reader.page(AuditFilter(user="user-7"), limit=1).next_cursor
    with pytest.raises(ValidationError, match="other filters"):
        reader.page(AuditFilter(user="user-8"), limit=1, cursor=token)


# -- one entry -------------------------------------------------------------------------------------------


def test_one_entry_is_found_by_its_id_and_the_reading_recorded(reader: AuditReader, trail: Any) -> None:
    wanted = reader.search(AuditFilter(error_id="error-9"))[0].record.event_id
    assert _numbers([reader.get(str(wanted))]) == [9]
    assert trail.events[-1].document["event_id"] == str(wanted)


@pytest.mark.parametrize(
    "event_id", ["x", "00000000-0000-4000-8000-000000000000", "019a0000-0000-7000-8000-000000000000"]
)
def test_an_id_that_is_not_there_is_named(event_id: str, reader: AuditReader) -> None:
    with pytest.raises(ValidationError, match=f"no audit entry '{event_id}'"):
        reader.get(event_id)


# -- export ----------------------------------------------------------------------------------------------


def _exported(reader: AuditReader, kind: ExportFormat, wanted: AuditFilter | None = None) -> str:
    target = io.StringIO()
    with reader.export(wanted or AuditFilter()) as entries:
        count = write_entries(entries, kind, target)
    assert count == (ROWS if wanted is None else 1)
    return target.getvalue()


def test_an_export_has_every_entry_decrypted_one_a_line(reader: AuditReader, trail: Any) -> None:
    lines = [json.loads(line) for line in _exported(reader, ExportFormat.JSONL).splitlines()]
    assert sorted(line["document"]["details"]["rows"] for line in lines) == list(range(ROWS))
    (event,) = trail.events
    assert (event.event_type, event.operation) == (EventType.AUDIT_READ, "export")


def test_a_table_has_every_entry_and_no_formula(reader: AuditReader) -> None:
    rows = list(csv.DictReader(io.StringIO(_exported(reader, ExportFormat.CSV))))
    assert len(rows) == ROWS
    by_id = {row["error_id"]: row for row in rows}
    assert by_id["error-1"]["message"] == "'=HYPERLINK(1)"
    assert by_id["error-2"]["message"] == "message 2"
    assert json.loads(by_id["error-2"]["document"])["user_id"] == "user-2"


def test_an_export_of_nothing_is_an_empty_file_or_a_bare_heading(reader: AuditReader) -> None:
    for kind, lines in ((ExportFormat.JSONL, 0), (ExportFormat.CSV, 1)):
        target = io.StringIO()
        with reader.export(AuditFilter(service="nowhere")) as entries:
            assert write_entries(entries, kind, target) == 0
        assert len(target.getvalue().splitlines()) == lines


def test_an_export_that_cannot_be_recorded_yields_nothing(reader: AuditReader, trail: Any) -> None:
    trail.away = True
    with pytest.raises(AuditUnavailableError), reader.export():
        pytest.fail("entries were handed out")


def test_a_file_appears_when_it_is_complete_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("before")
    path.chmod(0o644)
    with private_file(path) as file:
        file.write("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_fails_midway_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("before")

    def fail() -> None:
        with private_file(path) as file:
            file.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="choose another folder"), private_file(tmp_path / "no" / "x"):
        pytest.fail("there is no such folder")

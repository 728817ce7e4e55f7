from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import FileUploadError, RateLimitError
from techdeck_tasks.pipeline.registry import StageResult
from techdeck_tasks.pipeline.upload.names import checked_name
from techdeck_tasks.pipeline.upload.record import UnknownUploadError, Upload, UploadLimits
from techdeck_tasks.pipeline.upload.store import UploadStore

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage

CONTENT = b"name,age\n" + b"Ada,36\n" * 100


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.fixture
def uploads(tmp_path: Path) -> UploadStore:
    limits = UploadLimits(max_bytes=10_000, max_chunk_bytes=300, max_unpacked_bytes=20_000)
    return UploadStore(tmp_path / "uploads", limits, SystemClock())


def send(uploads: UploadStore, upload: Upload, content: bytes) -> Upload:
    """Send what is missing, as a client that resumes does."""
    offset = uploads.status(upload.upload_id).received_bytes
    while offset < len(content):
        chunk = content[offset : offset + 300]
        upload = uploads.put_chunk(upload.upload_id, offset, chunk, digest(chunk))
        offset = upload.received_bytes
    return upload


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "uploads" / "partial").iterdir())


def test_a_file_in_chunks_arrives_whole_and_leaves_nothing_else(uploads: UploadStore, tmp_path: Path) -> None:
    upload = uploads.begin("people.csv", len(CONTENT), digest(CONTENT))
    send(uploads, upload, CONTENT)
    accepted = uploads.finish(upload.upload_id)
    assert accepted.path.read_bytes() == CONTENT
    assert (accepted.filename, accepted.size_bytes, accepted.sha256) == (
        "people.csv", len(CONTENT), digest(CONTENT),
    )  # fmt: skip
    assert left(tmp_path) == []
    assert accepted.path.parent.stat().st_mode & 0o777 == 0o700
    assert accepted.path.stat().st_mode & 0o777 == 0o600


def test_an_upload_goes_on_in_another_process_where_it_broke_off(
    uploads: UploadStore, tmp_path: Path
) -> None:
    upload = uploads.begin("people.csv", len(CONTENT), digest(CONTENT))
    uploads.put_chunk(upload.upload_id, 0, CONTENT[:250], digest(CONTENT[:250]))
    # A process died while it wrote: bytes that no manifest knows.
    with (tmp_path / "uploads" / "partial" / upload.upload_id / "data").open("ab") as file:
        file.write(b"torn" * 2000)
    other = UploadStore(tmp_path / "uploads", UploadLimits(), SystemClock())
    assert other.status(upload.upload_id).received_bytes == 250
    send(other, upload, CONTENT)
    assert other.finish(upload.upload_id).path.read_bytes() == CONTENT


def test_a_chunk_sent_twice_changes_nothing(uploads: UploadStore) -> None:
    upload = uploads.begin("people.csv", len(CONTENT), digest(CONTENT))
    for _ in range(2):
        received = uploads.put_chunk(upload.upload_id, 0, CONTENT[:300], digest(CONTENT[:300]))
    assert received.received_bytes == 300
    send(uploads, upload, CONTENT)
    assert uploads.finish(upload.upload_id).sha256 == digest(CONTENT)


def test_chunks_from_several_clients_at_once_make_one_file(uploads: UploadStore) -> None:
    upload = uploads.begin("people.csv", len(CONTENT), digest(CONTENT))
    clients = [threading.Thread(target=send, args=(uploads, upload, CONTENT)) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert uploads.finish(upload.upload_id).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("offset", "chunk", "sha", "told"),
    [
        (0, b"a" * 301, None, "a chunk has 301 bytes; at most 300 are taken"),
        (0, b"abc", digest(b"abd"), "is not what its SHA-256 says; send it again"),
        (1, b"abc", None, "leaves a gap; go on at 0"),
        (-1, b"abc", None, "leaves a gap"),
        (0, b"a" * 11, None, "ends after the 10 bytes announced"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_and_the_upload_stays_open(
    uploads: UploadStore, offset: int, chunk: bytes, sha: str | None, told: str
) -> None:
    upload = uploads.begin("a.csv", 10, digest(b"x\n12345678"))
    with pytest.raises(FileUploadError, match=told) as caught:
        uploads.put_chunk(upload.upload_id, offset, chunk, sha or digest(chunk))
    assert caught.value.details == {
        "filename": "a.csv", "file_size": 10, "upload_id": upload.upload_id,
    }  # fmt: skip
    send(uploads, upload, b"x\n12345678")
    assert uploads.finish(upload.upload_id).size_bytes == 10


def test_a_file_that_is_not_all_there_or_damaged_is_not_accepted(
    uploads: UploadStore, tmp_path: Path
) -> None:
    upload = uploads.begin("a.csv", 10, digest(b"0123456789"))
    with pytest.raises(FileUploadError, match="0 of 10 bytes arrived; go on at 0"):
        uploads.finish(upload.upload_id)
    send(uploads, upload, b"0123456780")
    with pytest.raises(FileUploadError, match="not what its SHA-256 says"):
        uploads.finish(upload.upload_id)
    assert left(tmp_path) == []
    with pytest.raises(FileUploadError, match="no such upload under way"):
        uploads.finish(upload.upload_id)


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("program.csv", b"MZ\x90\x00\x03\x00\x00\x00" + b"\x00\xff" * 50),
        ("elf.csv", b"\x7fELF\x02\x01\x01" + b"\x00" * 60),
        ("archive.csv", b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(range(256))),
        ("script.csv", b"#!/bin/sh\nrm -rf /\n"),
        ("page.csv", b"<html><script>alert(1)</script>"),
        ("page.json", b"\xef\xbb\xbf  <!DOCTYPE html>"),
        ("table.json", b"name,age\nAda,36\n"),
        ("paper.csv", b"%PDF-1.7\n"),
        ("text.parquet", b"name,age\n"),
        ("columns.csv", parquet()),
        ("packed-program.csv.gz", gzip.compress(b"\x7fELF" + b"\x00" * 60, mtime=0)),
        ("bomb.csv.gz", gzip.compress(b"0" * 1_000_000, mtime=0)),
        ("cut.csv.gz", gzip.compress(CONTENT, mtime=0)[:40]),
    ],
)
def test_content_decides_and_what_is_refused_goes_to_quarantine(
    uploads: UploadStore, tmp_path: Path, name: str, content: bytes
) -> None:
    upload = uploads.begin(name, len(content), digest(content))
    send(uploads, upload, content)
    with pytest.raises(FileUploadError, match="it is in quarantine"):
        uploads.finish(upload.upload_id)
    kept = tmp_path / "uploads" / "quarantine" / upload.upload_id
    assert (kept / "content").read_bytes() == content
    assert json.loads((kept / "facts.json").read_text())["filename"] == name
    assert left(tmp_path) == []
    assert not (tmp_path / "uploads" / "ready").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", gzip.compress(CONTENT, mtime=0)),
        ("a.parquet", parquet()),
        ("a.jsonl", b'{"a": 1}\n'),
        ("a.json", b"[1]"),
        ("a.csv", "Zoë;1\n".encode("cp1252") * 20),
        ("a.csv", "name\nZoë\n".encode("utf-16")),
    ],
)
def test_what_is_what_its_name_says_is_accepted(uploads: UploadStore, name: str, content: bytes) -> None:
    upload = uploads.begin(name, len(content), digest(content))
    send(uploads, upload, content)
    assert uploads.finish(upload.upload_id).path.read_bytes() == content


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", ".csv", "../a.csv", "a/b.csv", "/etc/passwd.csv", "a\\b.csv", "C:a.csv",
        "a.csv\x00", "a\x00.csv", "a\n.csv", "a\x1b[31m.csv", "a\x85.csv", "a\u202evsc.csv", "a\u200b.csv",
        "a\ufeff.csv", "a\u2028.csv", "\ud800.csv", "\uff0e\uff0e\uff0fa.csv", "a\uff0ecsv", "a\u2024csv",
        "\u2025/a.csv", "%2e%2e%2fa.csv", "a%00.csv", "con.csv", "NUL.csv", "com1.csv", "com\u00b9.csv",
        "aux.tar.csv", "-rf.csv", "~a.csv", " a.csv", "a.csv ", "a.csv.", "a.csv.exe", "a.exe.csv",
        "a.php.csv",
        "a.csv.html", "a.CSV.EXE", "a.\u0441sv", "a", "a.txt", "a.gz", "a:b.csv", "a*.csv", "a?.csv",
        "a|b.csv",
        "<a>.csv", '"a".csv', "a" * 197 + ".csv", "\u00e4" * 99 + ".csv", "a.csv::$DATA",
    ],
)  # fmt: skip
def test_a_malicious_name_is_refused_and_shown_harmless(
    uploads: UploadStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(FileUploadError, match=r"is refused: .*; rename the file") as caught:
        uploads.begin(name, 10, digest(b""))
    shown = caught.value.details["filename"]
    assert shown.isascii()
    assert len(shown) <= 80
    assert not set(shown) & set("/\\\x00\n\x1b<>%")
    assert not (tmp_path / "uploads").exists()


@pytest.mark.parametrize(
    "name",
    [
        "people.csv",
        "Übersicht 2024-05.CSV",
        "a.b.c.jsonl",
        "患者.parquet",
        "50% (new).json",
        "é.csv",
        "a.tsv.gz",
    ],
)
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("size", "sha", "told"),
    [
        (0, digest(b""), "has 0 bytes; 1 to 10000 are taken"),
        (-1, digest(b""), "has -1 bytes"),
        (10_001, digest(b""), "has 10001 bytes; 1 to 10000 are taken: split the file"),
        (1, "abc", "is not 64 hex digits"),
    ],
)
def test_a_size_or_digest_that_cannot_be_is_refused(
    uploads: UploadStore, size: int, sha: str, told: str
) -> None:
    with pytest.raises(FileUploadError, match=told):
        uploads.begin("a.csv", size, sha)


@pytest.mark.parametrize("upload_id", ["", "../../etc", "0" * 31, "A" * 32, "0" * 33, "0" * 31 + "\n"])
def test_an_id_is_no_path(uploads: UploadStore, upload_id: str) -> None:
    for use in (uploads.status, uploads.finish):
        with pytest.raises(FileUploadError, match="32 hex digits"):
            use(upload_id)
    uploads.cancel(upload_id)


def test_a_cancelled_upload_is_gone_and_may_be_cancelled_again(uploads: UploadStore, tmp_path: Path) -> None:
    upload = uploads.begin("a.csv", 10, digest(b""))
    for _ in range(2):
        uploads.cancel(upload.upload_id)
    assert left(tmp_path) == []
    with pytest.raises(FileUploadError, match="no such upload"):
        uploads.put_chunk(upload.upload_id, 0, b"a", digest(b"a"))


def test_a_client_is_told_why_its_upload_failed(uploads: UploadStore) -> None:
    upload = uploads.begin("a.csv", 10, digest(b""))
    uploads.cancel(upload.upload_id)
    uploads.note_failure(upload.upload_id, {"error_id": "e-1", "error_code": "TIMEOUT_ERROR", "message": "x"})
    with pytest.raises(FileUploadError, match="failed with TIMEOUT_ERROR, error e-1; begin another"):
        uploads.status(upload.upload_id)


def test_abandoned_uploads_are_removed_by_their_age(uploads: UploadStore, tmp_path: Path) -> None:
    old, young = (uploads.begin("a.csv", 10, digest(b"")) for _ in range(2))
    manifest = tmp_path / "uploads" / "partial" / old.upload_id / "manifest.json"
    os.utime(manifest, (1, 1))
    assert uploads.remove_abandoned(timedelta(hours=1), timedelta(days=30)) == 1
    assert uploads.remove_abandoned(timedelta(hours=1), timedelta(days=30)) == 0
    assert left(tmp_path) == [young.upload_id]


def test_who_finishes_at_once_gets_the_same_file(uploads: UploadStore) -> None:
    upload = uploads.begin("a.csv", len(CONTENT), digest(CONTENT))
    send(uploads, upload, CONTENT)
    with ThreadPoolExecutor(8) as threads:
        accepted = set(threads.map(uploads.finish, [upload.upload_id] * 8))
    assert len(accepted) == 1
    assert accepted.pop().path.read_bytes() == CONTENT


def test_accepted_files_are_removed_by_their_age(uploads: UploadStore, tmp_path: Path) -> None:
    upload = uploads.begin("a.csv", len(CONTENT), digest(CONTENT), owner="ada")
    send(uploads, upload, CONTENT)
    accepted = uploads.finish(upload.upload_id)
    assert uploads.finish(upload.upload_id) == accepted == uploads.accepted_at(accepted.url)
    assert (accepted.owner, accepted.upload_id) == ("ada", upload.upload_id)
    assert uploads.remove_abandoned(timedelta(hours=1), timedelta(days=30)) == 0
    os.utime(accepted.path.parent / "manifest.json", (1, 1))
    assert uploads.remove_abandoned(timedelta(hours=1), timedelta(days=30)) == 1
    assert not accepted.path.exists()
    with pytest.raises(UnknownUploadError, match="upload the file again"):
        uploads.accepted_at(accepted.url)


def test_what_was_refused_is_removed_by_an_age_of_its_own(uploads: UploadStore, tmp_path: Path) -> None:
    upload = uploads.begin("a.parquet", len(CONTENT), digest(CONTENT), owner="ada")
    send(uploads, upload, CONTENT)
    with pytest.raises(FileUploadError, match="quarantine"):
        uploads.finish(upload.upload_id)
    kept = tmp_path / "uploads" / "quarantine" / upload.upload_id
    a_week_ago = time.time() - timedelta(days=7).total_seconds()
    os.utime(kept / "facts.json", (a_week_ago, a_week_ago))
    assert uploads.remove_abandoned(timedelta(hours=1), timedelta(days=30)) == 0
    assert uploads.remove_abandoned(timedelta(hours=1), timedelta(days=6)) == 1
    assert not kept.exists()


@pytest.mark.parametrize("owner", ["eve", ""])
def test_an_accepted_file_is_no_source_for_anybody_else(uploads: UploadStore, owner: str) -> None:
    upload = uploads.begin("a.csv", len(CONTENT), digest(CONTENT), owner="ada")
    send(uploads, upload, CONTENT)
    accepted = uploads.finish(upload.upload_id)
    uploads.require_owner(accepted.url, "ada")
    with pytest.raises(UnknownUploadError, match="not there"):
        uploads.require_owner(accepted.url, owner)


@pytest.mark.parametrize(
    "url", ["upload://{id}/b.csv", "upload://../a.csv", "upload:///a.csv", "upload://{id}/../a.csv"]
)
def test_an_upload_is_found_by_its_own_url_alone(uploads: UploadStore, url: str) -> None:
    upload = uploads.begin("a.csv", len(CONTENT), digest(CONTENT))
    send(uploads, upload, CONTENT)
    uploads.finish(upload.upload_id)
    with pytest.raises(UnknownUploadError):
        uploads.accepted_at(url.format(id=upload.upload_id))


@pytest.mark.parametrize("name", ["a.csv", "a b#1.csv", "größe 100 %.csv"])
def test_the_stage_reads_what_the_service_accepted_and_leaves_it_there(
    uploads: UploadStore, run_stage: RunStage, rows_of: Callable[[StageResult], pl.DataFrame], name: str
) -> None:
    upload = uploads.begin(name, len(CONTENT), digest(CONTENT))
    send(uploads, upload, CONTENT)
    accepted = uploads.finish(upload.upload_id)
    for _ in range(2):
        result = run_stage("file_upload", source=accepted.url, sha256=digest(CONTENT))
        assert rows_of(result).row(0) == ("Ada", 36)
        assert result.report["filename"] == accepted.filename
    assert accepted.path.read_bytes() == CONTENT


def test_the_stage_takes_a_file_in_and_reads_it(
    run_stage: RunStage, rows_of: Callable[[StageResult], pl.DataFrame], tmp_path: Path
) -> None:
    source = tmp_path / "people.csv"
    source.write_bytes(CONTENT)
    folder = str(tmp_path / "uploads")
    result = run_stage("file_upload", source=str(source), folder=folder, load={"infer_types": False})
    assert rows_of(result).row(0) == ("Ada", "36")
    assert result.report["sha256"] == digest(CONTENT)
    assert source.read_bytes() == CONTENT
    # Patients' data lies nowhere but in the artifact.
    assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]


def test_the_stage_refuses_what_an_upload_refuses(run_stage: RunStage, tmp_path: Path) -> None:
    source = tmp_path / "people.csv"
    source.write_bytes(CONTENT)
    folder = str(tmp_path / "uploads")
    with pytest.raises(FileUploadError, match="1 to 100 are taken"):
        run_stage("file_upload", source=str(source), folder=folder, max_bytes=100)
    with pytest.raises(FileUploadError, match="SHA-256"):
        run_stage("file_upload", source=str(source), folder=folder, sha256="0" * 64)
    source.write_bytes(b"\x7fELF" + b"\x00" * 60)
    with pytest.raises(FileUploadError, match="quarantine"):
        run_stage("file_upload", source=str(source), folder=folder)
    assert left(tmp_path) == []


# -- what one owner may have ---------------------------------------------------------------------------


def bounded(root: Path) -> UploadStore:
    return UploadStore(root, UploadLimits(max_open=3, max_kept_bytes=2 * len(CONTENT)), SystemClock())


def begun(root: Path) -> str | None:
    """Begin an upload of one byte; return its id, None where it is refused."""
    try:
        return bounded(root).begin("people.csv", 1, digest(b"x"), owner="ada").upload_id
    except RateLimitError:
        return None


def test_an_owner_has_so_many_open_uploads_and_no_more(tmp_path: Path) -> None:
    uploads = bounded(tmp_path)
    first, *_ = [uploads.begin("people.csv", 1, digest(b"x"), owner="ada") for _ in range(3)]
    with pytest.raises(
        RateLimitError, match="ada has 3 open uploads, and may have 3; complete or cancel"
    ) as caught:
        uploads.begin("people.csv", 1, digest(b"x"), owner="ada")
    assert (caught.value.http_status, caught.value.details["limit"]) == (429, 3)
    assert len(uploads.of_owner("ada")) == 3
    uploads.begin("people.csv", 1, digest(b"x"), owner="grace")
    uploads.cancel(first.upload_id)
    uploads.begin("people.csv", 1, digest(b"x"), owner="ada")


def test_what_was_accepted_or_refused_counts_as_bytes_and_not_as_open(tmp_path: Path) -> None:
    uploads = bounded(tmp_path)
    binary = b"\x00" * len(CONTENT)
    for content in (CONTENT, binary):
        upload = uploads.begin("people.csv", len(content), digest(content), owner="ada")
        uploads.put_chunk(upload.upload_id, 0, content, digest(content))
        if content is CONTENT:
            accepted = uploads.finish(upload.upload_id)
        else:
            with pytest.raises(FileUploadError, match="quarantine"):
                uploads.finish(upload.upload_id)
    assert uploads.of_owner("ada") == [accepted]
    with pytest.raises(RateLimitError, match=f"the uploads of ada have {2 * len(CONTENT)} bytes"):
        uploads.begin("people.csv", 1, digest(b"x"), owner="ada")
    uploads.discard(accepted)
    uploads.begin("people.csv", len(CONTENT), digest(CONTENT), owner="ada")


def test_the_service_itself_is_not_bounded(tmp_path: Path) -> None:
    uploads = bounded(tmp_path)
    for _ in range(5):
        uploads.begin("people.csv", len(CONTENT), digest(CONTENT))


def test_processes_and_threads_at_once_do_not_pass_the_last_place_together(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes, ThreadPoolExecutor(4) as threads:
        attempts = [pool.submit(begun, tmp_path) for _ in range(8) for pool in (processes, threads)]
        ids = [attempt.result() for attempt in attempts]
    assert sum(upload_id is not None for upload_id in ids) == 3
    assert len(bounded(tmp_path).of_owner("ada")) == 3

"""The audit log sealed anew to another key, on a real database."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.sink_export import SinkExporter
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.reading.reader import AuditReader
from techdeck_tasks.audit.rekeying import count_sealed_to, reseal
from techdeck_tasks.audit.sealing import Opener, SealedDataKey, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.keyring import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    CHECKPOINT_PRIVATE_KEYS,
    KeyFolders,
    KeySet,
    Purpose,
    RecipientAlgorithm,
)

PRODUCERS = 3


class SilentTrail:
    """Records nothing: who reads is another test's subject."""

    def record(self, event: AuditEvent) -> None:
        """Forget `event`."""


@pytest.fixture
def folders(tmp_path: Path) -> KeyFolders:
    folders = KeyFolders(
        tmp_path / "producer",
        tmp_path / "reader",
        tmp_path / "signer",
        algorithm=RecipientAlgorithm.MLKEM768_X25519,
    )
    folders.generate()
    return folders


@pytest.fixture
def written(folders: KeyFolders, writer: AuditWriter, new_event: Callable[..., AuditEvent]) -> None:
    keys = folders.producer
    for number in range(PRODUCERS):
        sealer = Sealer(KeySet.load(keys / AUDIT_PUBLIC_KEYS), KeySet.load(keys / BLIND_INDEX_KEYS), "clinic")
        writer.write([sealer.seal(new_event(attempt=number, document={"message": f"no {number}"}))])


def _public(folders: KeyFolders) -> KeySet:
    return KeySet.load(folders.producer / AUDIT_PUBLIC_KEYS)


def _opener(folders: KeyFolders) -> Opener:
    return Opener(KeySet.load(folders.reader / AUDIT_PRIVATE_KEYS))


def _messages(engine: Engine, folders: KeyFolders) -> set[str]:
    entries = AuditReader(engine, SilentTrail(), _opener(folders), "auditor").search()
    return {entry.document["message"] for entry in entries if entry.document}


def test_after_resealing_the_old_key_is_not_needed(
    engine: Engine, folders: KeyFolders, written: None
) -> None:
    before = verify(engine)
    old = _public(folders).active
    folders.add(Purpose.AUDIT, activate=True)
    assert count_sealed_to(engine, old) == PRODUCERS
    assert reseal(engine, _opener(folders), _public(folders)).resealed == PRODUCERS
    assert count_sealed_to(engine, old) == 0
    folders.destroy(Purpose.AUDIT, old)
    assert _messages(engine, folders) == {f"no {number}" for number in range(PRODUCERS)}
    assert not before.findings
    assert not verify(engine).findings


def test_resealing_reaches_the_copies_in_the_backup_sink(
    engine: Engine, folders: KeyFolders, written: None, tmp_path: Path
) -> None:
    signer = Signer(KeySet.load(folders.signer / CHECKPOINT_PRIVATE_KEYS))
    Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 10).make()
    store = SegmentStore((tmp_path / "sink").as_uri())
    SinkExporter(engine, store, SystemClock()).catch_up()
    old = _public(folders).active
    folders.add(Purpose.AUDIT, activate=True)
    reseal(engine, _opener(folders), _public(folders), store)
    folders.destroy(Purpose.AUDIT, old)
    opener = _opener(folders)
    copies = [json.loads(path.read_text()) for path in (tmp_path / "sink" / "keys").iterdir()]
    opened = {
        opener.data_key(
            SealedDataKey(
                uuid.UUID(copy["key_id"]),
                copy["tenant"],
                copy["recipient_id"],
                base64.b64decode(copy["sealed_key"]),
            )
        )
        for copy in copies
    }
    assert len(opened) == PRODUCERS


def test_a_sink_that_cannot_be_written_leaves_the_keys_as_they_were(
    engine: Engine, folders: KeyFolders, written: None, tmp_path: Path
) -> None:
    class FullStore(SegmentStore):
        def has_key(self, key_id: str) -> bool:
            return True

        def write_key(self, key: Any) -> None:
            raise OSError("no space left")

    old = _public(folders).active
    folders.add(Purpose.AUDIT, activate=True)
    with pytest.raises(OSError, match="no space left"):
        reseal(engine, _opener(folders), _public(folders), FullStore((tmp_path / "sink").as_uri()))
    assert count_sealed_to(engine, old) == PRODUCERS


def test_resealing_twice_does_nothing_the_second_time(
    engine: Engine, folders: KeyFolders, written: None
) -> None:
    folders.add(Purpose.AUDIT, activate=True)
    reseal(engine, _opener(folders), _public(folders))
    assert reseal(engine, _opener(folders), _public(folders)).resealed == 0


def test_what_no_private_key_opens_is_named_and_left(
    engine: Engine, folders: KeyFolders, written: None, tmp_path: Path
) -> None:
    old = _public(folders).active
    stranger = KeyFolders(tmp_path / "p2", tmp_path / "r2", tmp_path / "s2")
    stranger.generate()
    result = reseal(engine, _opener(stranger), _public(stranger))
    assert result.resealed == 0
    assert len(result.unopened) == PRODUCERS
    assert count_sealed_to(engine, old) == PRODUCERS

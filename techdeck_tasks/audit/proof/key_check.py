"""Comparing the sealed data keys with their copies in the backup sink: who overwrites one destroys documents.

No key that opens them is needed, nor are they seen: the database gives their digests alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Engine, text

from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.row_document import MALFORMED
from techdeck_tasks.storage.database import transaction

_BATCH = 1000
_DIGESTS = text("""
    SELECT CAST(key_id AS text) AS key_id, recipient_id, digest
    FROM techdeck_audit_key_digests(CAST(:ids AS uuid[]))
""")

RESEALING = 7236589410037
"""The advisory lock under which keys are sealed anew, first in the sink."""

_NOT_RESEALING = text("SELECT pg_advisory_xact_lock_shared(:lock)")


def check_sink_keys(engine: Engine, store: SegmentStore) -> Iterator[Finding]:
    """Yield that data keys are not those of the sink. Keys that only one of them has are left to others.

    Raises:
        ServiceUnavailableError: PostgreSQL is away.
        OSError: the sink cannot be read.
    """
    different: list[str] = []
    there = sorted(store.keys())
    for start in range(0, len(there), _BATCH):
        with transaction(engine) as connection:
            different += _different(connection, store, there[start : start + _BATCH])
    if not different:
        return
    # They may have been sealed anew, or destroyed, meanwhile.
    with transaction(engine) as connection:
        connection.execute(_NOT_RESEALING, {"lock": RESEALING})
        different = _different(connection, store, different)
    if different:
        detail = (
            f"{len(different)} sealed data keys are not those in the sink, the first is {different[0]}: one "
            "of each two opens nothing, or 'techdeck keys reseal' was interrupted; run that again"
        )
        yield Finding(Verdict.DATA_KEY_CHANGED, "audit_data_key", detail)


def _different(connection: Connection, store: SegmentStore, ids: Sequence[str]) -> list[str]:
    found = connection.execute(_DIGESTS, {"ids": list(ids)}).all()
    different = []
    for key in found:
        try:
            copy = store.read_key(key.key_id)
        except MALFORMED:
            different.append(key.key_id)
            continue
        if copy is not None and (copy[0], hashlib.sha256(copy[1]).digest()) != (key.recipient_id, key.digest):
            different.append(key.key_id)
    return different

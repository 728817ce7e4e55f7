"""Data keys sealed anew to another recipient. Rows and their hashes stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from sqlalchemy import Engine, func, select, text, update

from techdeck_tasks.audit.models import AuditDataKey
from techdeck_tasks.audit.proof.key_check import RESEALING
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.sealing import Opener, SealedDataKey
from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.keyring import KeySet
from techdeck_tasks.storage.database import transaction

BATCH = 500
_LOCK = text("SELECT pg_advisory_xact_lock(:lock)")


@dataclass(frozen=True, slots=True)
class Resealed:
    """What became of the data keys that were sealed to another recipient.

    Attributes:
        resealed: how many are sealed to the active recipient now.
        unopened: ids of those that no private key at hand opens; they stay as they were.
    """

    resealed: int
    unopened: tuple[str, ...]


def reseal(
    engine: Engine,
    opener: Opener,
    recipients: KeySet,
    sink: SegmentStore | None = None,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> Resealed:
    """Seal every data key to the active recipient; afterwards the old private keys can be destroyed.

    Batches are transactions: what was done before an interruption stays done, and a second call goes on.

    Args:
        engine: the database.
        opener: holds the private keys of the old recipients.
        recipients: public keys; the active one is sealed to.
        sink: the backup, whose copies of the keys are sealed anew first: the old private key may be destroyed
            after this.
        on_progress: takes how many were done so far.

    Raises:
        ServiceUnavailableError: PostgreSQL is away.
        OSError: the sink cannot be written; the batch in hand stays as it was.
    """
    done = 0
    unopened: list[str] = []
    table = AuditDataKey.__table__
    due = (
        select(table)
        .where(AuditDataKey.recipient_id != recipients.active, AuditDataKey.erased_at.is_(None))
        .order_by(AuditDataKey.key_id)
    )
    after = None
    while True:
        with transaction(engine) as connection:
            page = due if after is None else due.where(AuditDataKey.key_id > after)
            connection.execute(_LOCK, {"lock": RESEALING})
            # Locked: a key that is being destroyed must not come back to the sink.
            rows = connection.execute(page.limit(BATCH).with_for_update()).all()
            if not rows:
                return Resealed(done, tuple(unopened))
            for row in rows:
                held = SealedDataKey(row.key_id, row.tenant, row.recipient_id, bytes(row.sealed_key))
                try:
                    new = held.resealed(opener, recipients)
                except (EncryptionError, InvalidTag):
                    unopened.append(str(row.key_id))
                    continue
                resealed = connection.execute(
                    update(AuditDataKey)
                    .where(AuditDataKey.key_id == row.key_id)
                    .values(recipient_id=new.recipient_id, sealed_key=new.sealed_key)
                    .returning(*AuditDataKey.__table__.c)
                ).one()
                if sink is not None and sink.has_key(str(row.key_id)):
                    sink.write_key(resealed)
                done += 1
            after = rows[-1].key_id
        on_progress(done)


def count_sealed_to(engine: Engine, recipient_id: str) -> int:
    """Return how many data keys only the private key `recipient_id` opens."""
    statement = select(func.count()).where(
        AuditDataKey.recipient_id == recipient_id, AuditDataKey.erased_at.is_(None)
    )
    with transaction(engine) as connection:
        return int(connection.scalar(statement) or 0)

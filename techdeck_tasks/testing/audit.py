"""The audit trail for a test suite without Redis and PostgreSQL: sealed as in production, kept in a list.

Events take the way of the real ones: sealed to a public key when they are recorded, cut and cleaned as there,
and opened with the private key when the test reads them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from techdeck_tasks.audit.canonical import AuditRecord
from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError
from techdeck_tasks.audit.reading.entry import AuditEntry
from techdeck_tasks.audit.sealing import Opener, SealedEvent, Sealer
from techdeck_tasks.audit.writing.publisher import fail_policy_of
from techdeck_tasks.clock import Clock
from techdeck_tasks.keyring import KEY_BYTES, KeySet
from techdeck_tasks.settings import FailPolicy

_COLUMNS = frozenset(field.name for field in fields(AuditRecord))
_KEY = "testing"


class InMemoryAuditTrail:
    """An `AuditTrail` that a test can read, and that a test can make unavailable.

    Args:
        clock: gives the time at which an event counts as recorded.
        tenant: as in the settings.
        policies: the fail policy of each severity; ``spool`` where it names none.

    Attributes:
        away: set it to True, and nothing can be recorded any more, as where neither Redis nor the disk takes
            it: what the fail policy closes ends as `AuditUnavailableError`, the rest is lost.
        lost: how many events could not be recorded.
    """

    def __init__(
        self, clock: Clock, tenant: str = "default", policies: Mapping[str, FailPolicy] | None = None
    ) -> None:
        pair = X25519PrivateKey.generate()
        self._sealer = Sealer(
            KeySet(_KEY, {_KEY: pair.public_key().public_bytes_raw()}),
            KeySet(_KEY, {_KEY: secrets.token_bytes(KEY_BYTES)}),
            tenant,
        )
        self._opener = Opener(KeySet(_KEY, {_KEY: pair.private_bytes_raw()}))
        self._clock = clock
        self._entries: list[AuditEntry] = []
        self._policies = policies or {}
        self.away = False
        self.lost = 0

    def record(self, event: AuditEvent) -> None:
        """Keep `event`.

        Raises:
            AuditUnavailableError: the test made the trail unavailable, and the fail policy is closed.
        """
        if self.away:
            self.lost += 1
            if fail_policy_of(event, self._policies) is FailPolicy.CLOSED:
                raise AuditUnavailableError(f"audit event {event.event_id}: made unavailable by the test")
            return
        sealed = self._sealer.seal(event)
        self._entries.append(self._entry(sealed))

    def entries(self, **wanted: Any) -> list[AuditEntry]:
        """Return what is on record, oldest first.

        Args:
            wanted: values of columns of `AuditRecord`, such as ``error_code``, ``outcome``, ``task_name`` or
                ``attempt``; also ``user_id`` and ``subject_id``, which are found by their blind index.

        Raises:
            TypeError: there is no such column.
        """
        for name, index in (("user_id", "user"), ("subject_id", "subject")):
            if name in wanted:
                wanted[f"{index}_index"] = self._sealer.blind_index(index, wanted.pop(name))
        unknown = sorted(wanted.keys() - _COLUMNS)
        if unknown:
            raise TypeError(
                f"the audit log has no column {', '.join(unknown)}; it has {', '.join(sorted(_COLUMNS))}"
            )
        return [
            entry
            for entry in self._entries
            if all(getattr(entry.record, name) == value for name, value in wanted.items())
        ]

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, sealed: SealedEvent) -> AuditEntry:
        document = self._opener.open(sealed.record, sealed.data_key)
        return AuditEntry(sealed.record, self._clock.now(), document)

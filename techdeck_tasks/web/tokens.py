"""API tokens: 256 random bits, shown once, stored as their SHA-256. No salt: there is nothing to guess."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Engine, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.storage.database import transaction
from techdeck_tasks.web.models import MAX_NAME_CHARS, ApiTokenRow

PREFIX = "td_"
LONGEST_LIFETIME = timedelta(days=3650)
_SECRET_BYTES = 32
_USE_NOTED_EVERY = timedelta(minutes=1)
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MAX_NAME_CHARS - 1}}}")


class Role(StrEnum):
    """What a token may do beyond looking at runs, breakers and figures, which any token may."""

    SUBMITTER = "submitter"
    """Start pipelines."""
    OPERATOR = "operator"
    """Start, stop and resume pipelines; act on breakers, dead letters and interventions."""
    AUDITOR = "auditor"
    """Search and verify the audit log, read and sign reports, see incidents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token without its secret. Moments are aware UTC."""

    token_id: uuid.UUID
    name: str
    roles: frozenset[Role]
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None

    def state(self, now: datetime) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "active"


class TokenStore:
    """Makes, finds and revokes tokens. Safe to share between threads; every call is one transaction.

    Every method raises ServiceUnavailableError while PostgreSQL is away.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def create(
        self, name: str, roles: Iterable[Role], lifetime: timedelta, created_by: str
    ) -> tuple[Token, str]:
        """Make a token; return it and its secret, which nobody can ask for again.

        Raises:
            ValidationError: the name is malformed or was given before, there is no role, or the lifetime is
                not positive or above ten years.
        """
        if not _NAME.fullmatch(name):
            raise ValidationError(
                f"a token's name has 1 to {MAX_NAME_CHARS} letters, digits and . _ @ -, "
                "and begins with a letter or digit",
                field="name",
            )
        granted = frozenset(roles)
        if not granted:
            raise ValidationError(f"a token needs a role: {', '.join(Role)}", field="roles")
        if not timedelta(0) < lifetime <= LONGEST_LIFETIME:
            raise ValidationError(f"a token lives 1 to {LONGEST_LIFETIME.days} days", field="lifetime")
        now = self._clock.now()
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        row = {
            "token_id": uuid.uuid4(),
            "name": name,
            "roles": sorted(granted),
            "digest": digest_of(secret),
            "created_at": now,
            "created_by": created_by,
            "expires_at": now + lifetime,
        }
        statement = (
            insert(ApiTokenRow)
            .values(row)
            .on_conflict_do_nothing(index_elements=[ApiTokenRow.name])
            .returning(ApiTokenRow.__table__)
        )
        with transaction(self._engine) as connection:
            made = connection.execute(statement).first()
        if made is None:
            raise ValidationError(
                f"the name {name!r} was given before; the audit log tells actors apart by it, choose another",
                field="name",
            )
        return _token(made), secret

    def list(self) -> list[Token]:
        """Return every token, the newest first."""
        statement = select(ApiTokenRow.__table__).order_by(ApiTokenRow.created_at.desc(), ApiTokenRow.name)
        with transaction(self._engine) as connection:
            return [_token(row) for row in connection.execute(statement)]

    def revoke(self, name: str) -> Token:
        """Let a token end now; a second time changes nothing.

        Raises:
            ValidationError: there is no such token.
        """
        with transaction(self._engine) as connection:
            connection.execute(
                update(ApiTokenRow)
                .where(ApiTokenRow.name == name, ApiTokenRow.revoked_at.is_(None))
                .values(revoked_at=self._clock.now())
            )
            found = connection.execute(select(ApiTokenRow.__table__).where(ApiTokenRow.name == name)).first()
        if found is None:
            raise ValidationError(f"there is no token {name!r}; see techdeck token list", field="name")
        return _token(found)

    def find(self, secret: str) -> Token | None:
        """Return the token with this secret; None where there is none, or it expired or was revoked."""
        return self._usable(ApiTokenRow.digest == digest_of(secret))

    def get(self, token_id: uuid.UUID) -> Token | None:
        """Return the token of a session; None where it expired or was revoked meanwhile."""
        return self._usable(ApiTokenRow.token_id == token_id)

    def _usable(self, condition: ColumnElement[bool]) -> Token | None:
        now = self._clock.now()
        with transaction(self._engine) as connection:
            row = connection.execute(select(ApiTokenRow.__table__).where(condition)).first()
            if row is None:
                return None
            token = _token(row)
            if token.state(now) != "active":
                return None
            if token.last_used_at is None or now - token.last_used_at >= _USE_NOTED_EVERY:
                connection.execute(
                    update(ApiTokenRow).where(ApiTokenRow.token_id == token.token_id).values(last_used_at=now)
                )
        return token


def digest_of(secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _token(row: Row[Any]) -> Token:
    facts = {name: value for name, value in row._mapping.items() if name != "digest"}  # noqa: SLF001 - SQLAlchemy's public name for it
    return Token(**{**facts, "roles": frozenset(map(Role, row.roles))})

"""The table of API tokens. It holds digests: who reads it cannot use any of them."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, LargeBinary, String, Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from techdeck_tasks.storage.database import Base

MAX_NAME_CHARS = 64

_Moment = DateTime(timezone=True)


class ApiTokenRow(Base):
    """One token. Rows are never removed: the audit log names who acted by `name`."""

    __tablename__ = "api_token"

    token_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS), unique=True)
    roles: Mapped[list[str]] = mapped_column(ARRAY(String(16)))
    # SHA-256 of the token.
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[datetime] = mapped_column(_Moment)
    created_by: Mapped[str] = mapped_column(String(200))
    expires_at: Mapped[datetime] = mapped_column(_Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(_Moment)
    # To the minute: a row is not written with every request.
    last_used_at: Mapped[datetime | None] = mapped_column(_Moment)

    __table_args__ = (
        CheckConstraint(
            "cardinality(roles) > 0 AND roles <@ ARRAY['submitter', 'operator', 'auditor']::varchar[]",
            name="roles",
        ),
        CheckConstraint("length(digest) = 32", name="digest"),
    )

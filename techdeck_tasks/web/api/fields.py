"""What requests of several subjects have in common."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

# No control characters: PostgreSQL keeps no NUL, and no name of ours has the others.
Plain = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
# A form sends a field that was left empty as the empty text.
OptionalText = Annotated[Plain | None, BeforeValidator(lambda text: (text or "").strip() or None)]
Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00]+$"),
    Field(description="Why; kept in the audit log."),
]

BreakerName = Annotated[
    str, Path(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["dataset_load"])
]
RecordId = Annotated[str, Path(pattern=r"^[0-9a-fA-F-]{1,36}$", description="Its first characters do.")]
Limit = Annotated[int, Query(ge=1, le=500, description="At most this many.")]
Cursor = Annotated[str | None, Query(min_length=1, max_length=200, description="`next` of the page before.")]


class Because(BaseModel):
    """A decision with its reason."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


def example(
    value: Any, description: str = "Successful", status: int = 200
) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of an answer."""
    return {status: {"description": description, "content": {"application/json": {"example": value}}}}

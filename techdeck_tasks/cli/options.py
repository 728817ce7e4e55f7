"""Options that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

CursorOption = Annotated[
    str | None,
    typer.Option("--cursor", help="Go on where a page ended: what it printed; '' for the first page."),
]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]


def moment_option(help_text: str) -> Any:
    """Return an option that takes a date or a time; one without a zone is in UTC."""
    formats = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
    return typer.Option(formats=formats, callback=_in_utc, help=help_text)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)

"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

CursorOption = Annotated[
    str | None,
    typer.Option("--cursor", help="Go on where a page ended: what it printed; '' for the first page."),
]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]

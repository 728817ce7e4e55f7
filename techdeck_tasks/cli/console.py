"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def complain(message: str) -> None:
    """Print one line that says what is wrong."""
    err.print(f"techdeck: {' '.join(message.split())}", style="red", markup=False, soft_wrap=True)


def counted(number: int, one: str, more: str | None = None) -> str:
    """Return a number with its noun: "1 row", "1,200 rows"; `more` where an "s" does not make the plural."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def print_json(document: Any) -> None:
    """Print `document` for machines."""
    print(json.dumps(document, indent=2, default=str))

"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_HARMLESS = "\t\n"
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
_VISIBLE = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in _HARMLESS},
    0x7F: "\u2421",
    **dict.fromkeys((*range(0x80, 0xA0), *_DIRECTIONS), "\ufffd"),
}
"""What a terminal obeys (C0, C1) or writes backwards for, each as one character that is only shown."""


class PlainConsole(Console):
    """A console whose terminal obeys nothing that stands in names, reasons and messages of errors.

    They come from services, files and other people: an escape sequence among them could rewrite what an
    operator reads, the window's title or the clipboard.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments; those that are not rich's own control codes hold none."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(segment.text.translate(_VISIBLE), segment.style)


out = PlainConsole(highlight=False)
err = PlainConsole(stderr=True, highlight=False)


def complain(message: str) -> None:
    """Print one line that says what is wrong."""
    err.print(f"techdeck: {' '.join(message.split())}", style="red", markup=False, soft_wrap=True)


def counted(number: int, one: str, more: str | None = None) -> str:
    """Return a number with its noun: "1 row", "1,200 rows"; `more` where an "s" does not make the plural."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def print_json(document: Any) -> None:
    """Print `document` for machines."""
    print(json.dumps(document, indent=2, default=str))

"""Where quoted text, bracketed text and lines end.

Each function takes a `limit` and looks no further; each looks no further than it must, because callers go
through text that consists of nothing but openings.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(r"[\r\n]")
_WRITTEN_LINE_END = re.compile(r"[\r\n]|\\[rn]")
_BACKSLASHES_SEEN = 16


def end_of_line(text: str, start: int, limit: int) -> int:
    """Return where the line ends, be its end a character or an escape sequence."""
    end = _WRITTEN_LINE_END.search(text, start, limit)
    return end.start() if end else limit


def end_on_line(text: str, start: int, closing: str, limit: int) -> int:
    """Return where `closing` stands on this line, else where the line ends."""
    at = text.find(closing, start, limit)
    line = _LINE_END.search(text, start, limit if at < 0 else at)
    return line.start() if line else limit if at < 0 else at


def end_of_quote(text: str, start: int, quote: str, limit: int) -> int:
    """Return where a quoted value ends: at the same, unescaped quote, else where the line ends."""
    at = text.find(quote, start, limit)
    while at >= 0 and len(quote) == 1:
        before = text[max(start, at - _BACKSLASHES_SEEN) : at]
        if (len(before) - len(before.rstrip("\\"))) % 2 == 0:
            break
        at = text.find(quote, at + 1, limit)
    line = _LINE_END.search(text, start, limit if at < 0 else at)
    return line.start() if line else limit if at < 0 else at


def end_before(text: str, start: int, closing: str, limit: int) -> int:
    """Return where the text before `closing` ends, without the space in front of it."""
    at = text.find(closing, start, limit)
    return start + len(text[start : limit if at < 0 else at].rstrip())

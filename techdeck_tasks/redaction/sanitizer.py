"""Bounded, idempotent redaction of any text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from techdeck_tasks.redaction.catalogue import RULES
from techdeck_tasks.redaction.rule import REDACTED, Finder, Span, Subject

MAX_VISIBLE_CHARS: Final = 500
"""A message is cut here (the specification's limit) ..."""

ELLIPSIS: Final = "..."

MAX_MESSAGE_CHARS: Final = MAX_VISIBLE_CHARS + len(ELLIPSIS)
"""... and marked, so that no result of `sanitize_message` is longer than this."""

MAX_TEXT_CHARS: Final = 2**20
"""What `redact` reads and returns at most; what stands behind it is replaced by one `[REDACTED]`."""

_WINDOW_CHARS: Final = 2**14
"""What `sanitize_message` reads at most: enough that redaction cannot shrink it below the visible part."""

_LONGEST_WORD: Final = 4096
_ROUNDS: Final = 8


class _Index:
    """The rules that apply to text with a given number of digits, by what calls them up."""

    def __init__(self, digits: int) -> None:
        rules = [rule for rule in RULES if rule.digits <= digits]
        self.always = [rule.find for rule in rules if not rule.hints and not rule.words]
        self.by_hint: dict[str, list[Finder]] = {}
        self.by_word: dict[bytes, list[Finder]] = {}
        for rule in rules:
            for hint in rule.hints:
                self.by_hint.setdefault(hint, []).append(rule.find)
            for word in rule.words:
                self.by_word.setdefault(word.encode(), []).append(rule.find)
        self.words = frozenset(self.by_word)

    def finders(self, subject: Subject) -> list[Finder]:
        """Return each finder whose rule applies, once."""
        folded = subject.folded
        called = [find for hint, finders in self.by_hint.items() if hint in folded for find in finders]
        for word in self.words & subject.words:
            called += self.by_word[word]
        return self.always + list(dict.fromkeys(called)) if called else self.always


_INDEXES: Final = {digits: _Index(digits) for digits in (0, 1, 3, 6)}


def redact(text: str) -> str:
    """Replace each secret and identifier in `text` by `[REDACTED]`.

    Args:
        text: Anything; lone surrogates and control characters included.

    Returns:
        At most `MAX_TEXT_CHARS` characters. Redacting a result again changes nothing. Text without a secret
        comes back unchanged.

    Never raises for a `str`; takes time linear in `len(text)`.
    """
    return redact_within(text, MAX_TEXT_CHARS)


def sanitize_message(message: str) -> str:
    """Redact `message` and cut it for a response, a log line or a database column.

    Args:
        message: Anything; only the first 16 KiB are read.

    Returns:
        At most `MAX_MESSAGE_CHARS` characters, cut with `...` after `MAX_VISIBLE_CHARS`. Sanitising a result
        again changes nothing.

    Never raises for a `str`.
    """
    text = message
    for _ in range(_ROUNDS):
        result = _cut(redact_within(text, _WINDOW_CHARS))
        if len(text) <= MAX_VISIBLE_CHARS or result == text:
            return result
        text = result
    return REDACTED


def redact_within(text: str, limit: int) -> str:
    """Read at most `limit` characters; redact until nothing is left to redact, which makes it idempotent."""
    for _ in range(_ROUNDS):
        text = _clip(text, limit)
        try:
            spans = _find(text)
        except Exception:  # noqa: BLE001 - a faulty rule must hide the text, not break the handling of an error
            return REDACTED
        if not spans:
            return text
        text = _replace(text, spans)
    return REDACTED  # Text built to look different after each round: nothing of it is worth showing.


def _clip(text: str, limit: int) -> str:
    """Drop what stands behind `limit` together with the word that the limit splits."""
    if len(text) <= limit:
        return text
    end = limit - len(REDACTED) - 1
    space = max(text.rfind(" ", end - _LONGEST_WORD, end), text.rfind("\n", end - _LONGEST_WORD, end))
    return f"{text[: space if space > 0 else end]} {REDACTED}"


def _cut(text: str) -> str:
    """Cut at the visible limit, before a placeholder that the limit would split."""
    if len(text) <= MAX_VISIBLE_CHARS or (len(text) <= MAX_MESSAGE_CHARS and text.endswith(ELLIPSIS)):
        return text
    split = text.find(REDACTED, MAX_VISIBLE_CHARS - len(REDACTED) + 1, MAX_VISIBLE_CHARS + len(REDACTED) - 1)
    return text[: MAX_VISIBLE_CHARS if split < 0 else min(split, MAX_VISIBLE_CHARS)] + ELLIPSIS


def _find(text: str) -> list[Span]:
    """Ask every rule that applies."""
    subject = Subject(text)
    spans: list[Span] = []
    for find in _INDEXES[subject.digits].finders(subject):
        spans.extend(find(subject))
    if not spans:
        return spans
    return [span for span in spans if _has_content(text[span[0] : span[1]])]


def _has_content(part: str) -> bool:
    """Tell whether anything but placeholders and punctuation would be hidden."""
    if REDACTED in part:
        part = part.replace(REDACTED, "")
    return any(map(str.isalnum, part))


def _replace(text: str, spans: Iterable[Span]) -> str:
    """Write one placeholder for each group of touching or overlapping spans."""
    parts: list[str] = []
    shown = hidden_until = 0
    for start, end in sorted(spans):
        if start > hidden_until or not parts:
            parts.append(text[shown:start])
            parts.append(REDACTED)
        hidden_until = shown = max(hidden_until, end)
    parts.append(text[shown:])
    return "".join(parts)

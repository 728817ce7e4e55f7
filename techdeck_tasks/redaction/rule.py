"""What a redaction rule is: a name, a reason, a way to find secrets, and examples that the tests run.

A rule reports *spans* of the original text; it never rewrites. The sanitizer merges the spans of all rules
and writes `REDACTED` once per merged span, so the order of the rules does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

REDACTED = "[REDACTED]"

Span = tuple[int, int]

_SIX_DIGITS = re.compile(r"\d(?:\D{0,2}\d){5}")
_THREE_DIGITS = re.compile(r"\d\D?\d\D?\d")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,]{0,10}")
_DIGIT = re.compile(r"\d")
_LETTERS_ONLY = bytes(code if chr(code).isalpha() else ord(" ") for code in range(128)) + b" " * 128


class Subject:
    """The text under inspection, with what most rules ask of it computed once."""

    __slots__ = ("digits", "folded", "text", "words")

    def __init__(self, text: str) -> None:
        """Keep `text` and a lower-case copy of the same length, so that offsets in one hold in the other."""
        self.text = text
        folded = text.lower()
        if len(folded) != len(text):
            # A few characters grow when lowered (U+0130); such a character stays as it is.
            folded = "".join(low if len(low := char.lower()) == 1 else char for char in text)
        self.folded = folded
        self.words = frozenset(folded.encode("ascii", "replace").translate(_LETTERS_ONLY).split())
        self.digits = _count_digits(text)


def _count_digits(text: str) -> int:
    """Tell how many digits stand close together: 0, 1, 3, or 6 and more; those of a timestamp count as 1."""
    if not _DIGIT.search(text):
        return 0
    if _SIX_DIGITS.search(text):
        text = _TIMESTAMP.sub("", text)
        if _SIX_DIGITS.search(text):
            return 6
    return 3 if _THREE_DIGITS.search(text) else 1


Finder = Callable[[Subject], Iterable[Span]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of leak.

    Attributes:
        name: Kebab-case, unique, shown by failing tests.
        reason: Why text of this shape must not reach a log.
        find: Returns the spans to hide. Must run in time linear in the text.
        hints: Lower-case literals. The rule runs only on text that holds at least one of them, or of `words`;
            where both are empty, always.
        words: Lower-case words, of letters only, that must stand alone; quicker to see than hints.
        digits: 0, 1, 3 or 6: the rule runs only on text in which so many digits stand close together.
        leaks: Examples; what must disappear stands between « and ».
        benign: Near misses that must come back unchanged.
    """

    name: str
    reason: str
    find: Finder
    hints: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    digits: int = 0
    leaks: tuple[str, ...] = ()
    benign: tuple[str, ...] = field(default=())


def matching(pattern: str, accept: Callable[[str], bool] | None = None) -> Finder:
    """Build a finder from a regular expression (verbose syntax).

    Args:
        pattern: The group named `secret` is hidden; without one, the whole match.
        accept: Asked about each secret found, e.g. a checksum; a refused one is left alone.

    Patterns must not backtrack without bound: bound each repeat or make it possessive. One that begins with a
    character class and looks behind from there is scanned several times faster than one that looks behind
    first.
    """
    compiled = re.compile(pattern, re.VERBOSE)
    group: int | str = "secret" if "secret" in compiled.groupindex else 0

    def find(subject: Subject) -> Iterator[Span]:
        for match in compiled.finditer(subject.text):
            if accept is None or accept(match[group]):
                yield match.span(group)

    return find


def anchored(anchors: tuple[str, ...], pattern: str, accept: Callable[[str], bool] | None = None) -> Finder:
    """Build a finder for a value behind one of many words; plain search finds the words.

    Args:
        anchors: Lower-case literals; pass the same as the rule's words.
        pattern: Matched (verbose syntax, lower case) where an anchor begins; the group `secret` is hidden.
        accept: Asked about each secret found.
    """
    compiled = re.compile(pattern, re.VERBOSE)

    def find(subject: Subject) -> Iterator[Span]:
        text, folded = subject.text, subject.folded
        for anchor in anchors:
            at = folded.find(anchor)
            while at >= 0:
                match = compiled.match(folded, at)
                if match and (accept is None or accept(text[match.start("secret") : match.end("secret")])):
                    yield match.span("secret")
                at = folded.find(anchor, at + len(anchor))

    return find

"""The dialect of a CSV file: what separates its fields, and what quotes them."""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import polars as pl

SEPARATORS = (",", ";", "\t", "|")
_SAMPLE_CHARS = 1 << 16
_SAMPLE_ROWS = 200
_BLOCK_BYTES = 1 << 20
_MAX_ROW_BYTES = 1 << 20


def read_sample(path: Path, comment_prefix: str | None = None) -> str:
    """Return whole lines from the beginning of a UTF-8 file, without comments."""
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read(_SAMPLE_CHARS)
        if len(text) == _SAMPLE_CHARS:
            text = text[: text.rfind("\n") + 1] or text
    if comment_prefix is None:
        return text
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(comment_prefix))


def cuts(path: Path, step: int, quote: str | None) -> list[int]:
    """Return where to cut a file after about `step` bytes each, at ends of lines; the last is its own end.

    Where the sample has quotes the whole file is read and they are counted, since a line feed inside of them
    ends no row: a cut has an even number before it. Without a `quote` each line feed ends a row. No cuts
    where a row has no end in sight.
    """
    size = path.stat().st_size
    mark = (quote or "").encode()
    found: list[int] = []
    with path.open("rb") as file:
        quoted = quote is not None and mark in file.read(_SAMPLE_CHARS)
        at = 0
        while size - at > step + step // 2:
            odd = quoted and bool(_count(file, at, at + step, mark) % 2)
            file.seek(at + step)
            ended = False
            while not ended:
                line = file.readline(_MAX_ROW_BYTES)
                if not line.endswith(b"\n") or file.tell() - at > 2 * step + _MAX_ROW_BYTES:
                    return []
                odd ^= quoted and bool(line.count(mark) % 2)
                ended = not odd
            at = file.tell()
            if at < size:
                found.append(at)
    return [*found, size]


def _count(file: BinaryIO, begin: int, end: int, mark: bytes) -> int:
    file.seek(begin)
    found = 0
    while begin < end and (block := file.read(min(_BLOCK_BYTES, end - begin))):
        found += block.count(mark)
        begin += len(block)
    return found


@dataclass(frozen=True, slots=True)
class LongRow:
    """A row that has more fields than the first one.

    Attributes:
        line: the line it ends in, from 1.
        fields: how many it has.
        width: how many the first row has.
        escapes: a backslash is before a separator in it.
    """

    line: int
    fields: int
    width: int
    escapes: bool


def long_row(path: Path, separator: str, quote: str, skipped_lines: int = 0) -> LongRow | None:
    """Return the first row that has more fields than the first one.

    None where there is no such row before one that is no CSV at all.
    """
    with path.open(encoding="utf-8", newline="") as file:
        for _ in range(skipped_lines):
            file.readline()
        rows = csv.reader(file, delimiter=separator, quotechar=quote)
        try:
            width = len(next(rows, []))
            for row in rows:
                if len(row) > width > 0:
                    escapes = any(value.endswith("\\") for value in row[:-1])
                    return LongRow(rows.line_num + skipped_lines, len(row), width, escapes)
        except csv.Error:
            pass  # for who reads it to tell
    return None


@dataclass(frozen=True, slots=True)
class StrayQuote:
    """A quote inside a field that is not doubled.

    Attributes:
        line: the line its row ends in, from 1.
        escaped: a backslash before it was to escape it.
    """

    line: int
    escaped: bool


def may_have_stray_quotes(data: bytes, separator: str, quote: str) -> bool:
    """Whether whole lines of UTF-8 have a quote that neither begins nor ends a field, nor is doubled."""
    mark = quote.encode()
    if mark not in data:
        return False
    outside = f"[^{re.escape(separator)}{quote}\n\r]"
    text = pl.Series([data.decode(errors="replace")])
    return bool(text.str.contains(rf"\\{quote}|{outside}{quote}{outside}").any())


def stray_quote_in(path: Path, separator: str, quote: str, skipped_lines: int = 0) -> StrayQuote | None:
    """Return what `stray_quote` does of a file; most have no such quote at all."""
    with path.open("rb") as file:
        before = b""
        while block := file.read(_BLOCK_BYTES):
            if may_have_stray_quotes(before + block, separator, quote):
                break
            before = block[-2:]
        else:
            return None
    with path.open(encoding="utf-8", newline="") as text:
        for _ in range(skipped_lines):
            text.readline()
        found = stray_quote(text, separator, quote)
    return None if found is None else replace(found, line=found.line + skipped_lines)


def stray_quote(lines: Iterable[str], separator: str, quote: str) -> StrayQuote | None:
    r"""Return the first quote inside a field of whole rows that is not doubled: readers guess what it means.

    ``"C:\"`` is a whole field: only a later field that ends with a quote tells that it was to be escaped.
    """
    last: deque[str] = deque(maxlen=1)
    kept = (last.append(line) or line for line in lines)  # type: ignore[func-returns-value]  # it is None
    rows = csv.reader(kept, delimiter=separator, quotechar=quote, strict=True)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            is_stray = "expected after" in str(error)
            return StrayQuote(rows.line_num, f"\\{quote}" in last[0]) if is_stray else None
        if row is None:
            return None
        cut = next((number for number, value in enumerate(row) if value.endswith("\\")), len(row))
        if any(value.endswith(quote) and value.count(quote) % 2 for value in row[cut + 1 :]):
            return StrayQuote(rows.line_num, escaped=True)


def lone_quote(path: Path, separator: str, quote: str, skipped_lines: int = 0) -> int | None:
    """Return the line of the first row with an odd number of quotes in a field without quotes around it.

    Or that in which a quote around a field has no end before the file has.
    """
    with path.open(encoding="utf-8", newline="") as file:
        for _ in range(skipped_lines):
            file.readline()
        rows = csv.reader(file, delimiter=separator, quotechar=quote, strict=True)
        ended = 0
        try:
            for row in rows:
                if any(value.count(quote) % 2 and not value.startswith(quote) for value in row):
                    return rows.line_num + skipped_lines
                ended = rows.line_num
        except csv.Error as error:
            # A field that goes on for ever is longer than is allowed before the file ends.
            if "unexpected end" in str(error) or "field limit" in str(error):
                return ended + 1 + skipped_lines
    return None


def detect_separator(sample: str, quote: str) -> str:
    """Return the separator that cuts most rows of `sample` into the same number of fields, two or more.

    Of several the one that agrees in more rows, then that which makes more fields; a comma where none does.
    """
    return max(SEPARATORS, key=lambda separator: (*_agreement(sample, separator, quote), separator == ","))


def _agreement(sample: str, separator: str, quote: str) -> tuple[float, int]:
    """Return the share of rows with the most frequent number of fields, and that number."""
    rows = csv.reader(sample.splitlines(keepends=True), delimiter=separator, quotechar=quote)
    sizes: Counter[int] = Counter()
    try:
        for _, row in zip(range(_SAMPLE_ROWS), rows, strict=False):
            if row:
                sizes[len(row)] += 1
    except csv.Error:
        return 0.0, 0
    if not sizes:
        return 0.0, 0
    fields, agreeing = sizes.most_common(1)[0]
    return (agreeing / sizes.total(), fields) if fields > 1 else (0.0, 0)


def detect_quote(sample: str) -> str:
    """Return ``'`` where whole fields are in single quotes and none in double ones; else ``"``."""
    edge = "[,;\t|\r\n]"
    double = re.search(rf'(?:^|{edge})\s*"', sample)
    single = re.search(rf"(?:^|{edge})'[^'\r\n]*'(?={edge}|$)", sample)
    return "'" if single and not double else '"'

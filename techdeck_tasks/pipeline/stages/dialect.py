"""The dialect of a CSV file: what separates its fields, and what quotes them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

SEPARATORS = (",", ";", "\t", "|")
_SAMPLE_CHARS = 1 << 16
_SAMPLE_ROWS = 200


def read_sample(path: Path, comment_prefix: str | None = None) -> str:
    """Return whole lines from the beginning of a UTF-8 file, without comments."""
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read(_SAMPLE_CHARS)
        if len(text) == _SAMPLE_CHARS:
            text = text[: text.rfind("\n") + 1] or text
    if comment_prefix is None:
        return text
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(comment_prefix))


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

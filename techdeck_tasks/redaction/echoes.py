"""Values that a parser, a validator or a database prints because it refused them, and health messages.

A refused value is a cell of somebody's data. A lower-case word, a small number or a date explains the error
and identifies nobody; all else goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import shapes
from techdeck_tasks.redaction.quoting import end_of_quote
from techdeck_tasks.redaction.rule import Rule, Span, Subject
from techdeck_tasks.redaction.structures import between, is_more_than_a_word

# What stands before the value in PostgreSQL, MySQL, SQL Server, Oracle, Python, pandas, Polars, Arrow.
_ANCHORS = (
    "column values:", "conversion error", "conversion from", "converting the", "could not ", "incorrect ",
    "invalid data for", "invalid input", "invalid isoformat", "invalid literal", "invalid number:",
    "preview of", "time data ", "truncated value", "unable to parse", "unicodedecodeerror(",
    "unicodeencodeerror(",
)  # fmt: skip
_REFUSED = re.compile(
    r"""(?:
        invalid\ input\ syntax\ for\ (?:type\ )?[\w ]{1,40}:
      | invalid\ literal\ for\ [\w() ]{1,20}\ with\ base\ \d{1,2}:
      | invalid\ (?:input|data)\ for\ query\ argument\ \$\d{1,4}:
      | conversion\ error\ to\ [\w\[\]]{1,30}:\ invalid\ value
      | could\ not\ (?:convert|parse)(?:\ string\ to\ [\w ]{1,20}:)?
      | unable\ to\ parse\ string | time\ data | invalid\ isoformat\ string:
      | converting\ the\ \w{1,20}\ value | truncated\ value: | invalid\ number: | column\ values:
      | incorrect\ [\w ]{2,20}\ value: | preview\ of\ field's\ value:
      | conversion\ from\ `[^`\n]{1,40}`\ to\ `[^`\n]{1,60}`\ failed\ in\ column\ '[^'\n]{1,100}'
        \ for\ \d+\ out\ of\ \d+\ values:\ \[
      | unicode(?:de|en)codeerror\('[\w-]{1,20}',
    )\ ? b?(?P<quote>["'`])""",
    re.VERBOSE,
)
# What stands behind it in jsonschema and list.index.
_JUDGED = re.compile(
    r"""'(?P<value>[^'{}\n]{2,400}+)'\ (?:
        is\ (?:not\ (?:of\ type|one\ of|in\ list|valid|a\ )|too\ (?:long|short)\b)
      | does\ not\ match\ ['"])""",
    re.VERBOSE,
)


def _is_cell(value: str) -> bool:
    """Tell data from words, dates, types and absent values."""
    return is_more_than_a_word(value) and not (shapes.is_operational(value) or shapes.is_trivial(value))


def _find_refused(subject: Subject) -> Iterator[Span]:
    text, folded = subject.text, subject.folded
    for anchor in _ANCHORS:
        at = folded.find(anchor)
        while at >= 0:
            if match := _REFUSED.match(folded, at):
                start = match.end()
                end = end_of_quote(text, start, match["quote"], len(text))
                if _is_cell(text[start:end]):
                    yield start, end
            at = folded.find(anchor, at + len(anchor))


def _find_judged(subject: Subject) -> Iterator[Span]:
    for match in _JUDGED.finditer(subject.text):
        if _is_cell(match["value"]):
            yield match.span("value")


ECHO_RULES: tuple[Rule, ...] = (
    Rule(
        name="refused-value",
        reason="Parsers print the value that they could not read.",
        find=_find_refused,
        words=(
            "argument",
            "base",
            "conversion",
            "convert",
            "converting",
            "incorrect",
            "isoformat",
            "number",
            "parse",
            "preview",
            "syntax",
            "time",
            "truncated",
            "unicodedecodeerror",
            "unicodeencodeerror",
            "values",
        ),
        leaks=(
            'invalid input syntax for type integer: "«Mia Kay»"',
            "ValueError: could not convert string to float: '«Mia Kay»'",
            "invalid literal for int() with base 10: '«Mia Kay»'",
            "could not parse `«Mia Kay»` as dtype `i64` at column 'age'",
            "conversion from `str` to `i64` failed in column 'a' for 1 out of 1 values: [\"«Mia Kay»\"]",
            "UnicodeDecodeError('utf-8', b'«Mia K\\xff»', 5, 6, 'invalid start byte')",
            "Truncated incorrect DOUBLE value: '«Mia Kay»'",
            "time data '«Mia Kay»' does not match format '%Y'",
        ),
        benign=(
            'invalid input syntax for type integer: "old"',
            "Invalid isoformat string: 'yesterday'",
            "time data '2024-13-01' does not match format '%Y-%m-%d'",
            "could not convert string to float: 'n/a'",
            "incorrect number of arguments: 'x'",
        ),
    ),
    Rule(
        name="judged-value",
        reason="Validators begin with the value that they refuse.",
        find=_find_judged,
        words=("list", "long", "match", "one", "short", "type", "valid"),
        leaks=(
            "ValidationError: '«Mia Kay»' is not of type 'integer'",
            "'«Mia Kay»' does not match '^[0-9]+$'",
        ),
        benign=("'old' is not one of ['a', 'b']", "'2024-02-31' is not valid"),
    ),
    Rule(
        name="failure-cases",
        reason="pandera, dateutil and Arrow end with the values that they refuse, without quotes.",
        find=between(
            r"\bfailure\ cases?:\s?|\bunknown\ (?:string|datetime)\ (?:string\ )?format:\s"
            r"|csv\ parse\ error:\ expected\ \d{1,6}\ columns,\ got\ \d{1,6}:\s"
            r"|\bindex\s{1,8}failure_case\s{1,40}",
            r"\n\n|\Z|[\r\n](?=[\w.]{1,80}(?:error|exception)\b)",
            is_more_than_a_word,
        ),
        words=("failure", "format", "csv"),
        leaks=(
            "str_length(0, 3) failure cases: «Mia Kay, Bob Ray»",
            "ParserError: Unknown string format: «Mia Kay»",
        ),
        benign=("failure cases: 3, 17", "Unknown string format: soon"),
    ),
    Rule(
        name="document-fields",
        reason="MongoDB prints the key or the operation that failed.",
        find=between(r"['\"](?:keyvalue|op)['\"]:\s?\{", r"\}"),
        words=("keyvalue", "op"),
        leaks=("{'keyPattern': {'n': 1}, 'keyValue': {«'n': 'Mia Kay'»}}",),
        benign=("{'keyValue': {}}",),
    ),
    Rule(
        name="health-message",
        reason="Segments of HL7 v2 and X12 that describe a patient, a relative or an insured person.",
        find=between(
            r"(?<![a-z0-9])(?:(?:pid|pd1|nk1|gt1|in1|in2|acc)\||(?:nm1|n3|n4|dmg|per)\*)",
            r"[\r\n~]|\\r|\\n|\Z",
        ),
        words=("dmg", "gt", "nk", "nm", "pd", "pid"),
        leaks=(
            "refused PID|«1||00451278^^^H||KAY^MIA||19791202»\rPV1|1",
            "at NM1*«IL*1*KAY*MIA****MI*XK55120»~",
        ),
        benign=("select pid || name", "pid|", "n4 * 3"),
    ),
    Rule(
        name="person-resource",
        reason="FHIR resources hold names and addresses under short names.",
        find=between(r"['\"](?:family|given|line|city)['\"]:\s?\[?\s?['\"]", r"['\"]", is_more_than_a_word),
        words=("family", "given"),
        leaks=('{"name": [{"family": "«Kay»", "given": ["«Mia»"]}]}',),
        benign=("{'family': 'serif'}",),
    ),
)

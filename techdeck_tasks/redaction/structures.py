"""Places where databases, validators and protocols print the data they were given.

No shape of the data gives it away there: whatever stands in such a place is data. The right cure is at the
source (`hide_parameters=True`, SQLSTATE instead of DETAIL); this catches what comes from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from techdeck_tasks.redaction import shapes
from techdeck_tasks.redaction.rule import Finder, Rule, Span, Subject, matching

# Numbers of up to four digits, NULLs, booleans and empty containers identify nobody.
_HARMLESS = re.compile(
    r"(?:[\s,()\[\]{}]++|(?<![\w.])-?\d{1,4}(?![\w.])|none|null|true|false|''|\"\")*+", re.IGNORECASE
)
_ID_DIGITS = 7
_LOWER_WORD = re.compile(r"['\"]?[a-z_-]{1,16}['\"]?")
_STRING_LITERAL = re.compile(r"(?<!\w)'((?:[^']|'')*+)'")
# What follows the bracket that closes PostgreSQL's data; a line break alone may be inside a value.
_END_OF_DATA = r"(?=\s*(?:\Z|[\r\n]|\\n|[\"']\)?\s*\Z|\[sql|context:|hint:|\(background))"


def _is_data(value: str) -> bool:
    return _HARMLESS.fullmatch(value) is None


def is_more_than_a_word(value: str) -> bool:
    """A validator's short lower-case word ("old", "abc") explains the error and is kept; names are not."""
    return _is_data(value) and _LOWER_WORD.fullmatch(value.strip()) is None


def between(opening: str, closing: str, accept: Callable[[str], bool] = _is_data) -> Finder:
    """Build a finder for what stands between two patterns.

    Args:
        opening: Matched against the lower-case text.
        closing: The nearest match ends the data. Where none follows, the rest of the text is data: a
            truncated message must not leak.
        accept: Asked whether what was found is worth hiding.
    """
    start, stop = re.compile(opening, re.VERBOSE), re.compile(closing, re.VERBOSE)

    def find(subject: Subject) -> Iterator[Span]:
        done = 0
        for match in start.finditer(subject.folded):
            if match.start() < done:
                continue
            closed = stop.search(subject.folded, match.end())
            done = closed.start() if closed else len(subject.text)
            if accept(subject.text[match.end() : done]):
                yield match.end(), done

    return find


_statements = between(r"\[sql:\ (?!['\"])", r"\](?=\s|\\n|[\"']|\Z)", bool)
_shown_lines = between(r"\bline\ \d{1,6}:\ |\bstatement:\ \ ?", r"[\r\n]|\\n|\Z", bool)


def _sql_literals(subject: Subject) -> Iterator[Span]:
    """Yield the string literals inside the statements that drivers attach to their errors."""
    for find in (_statements, _shown_lines):
        for start, end in find(subject):
            for literal in _STRING_LITERAL.finditer(subject.text, start, end):
                if is_more_than_a_word(literal[1]):
                    yield literal.span(1)


def _is_lookup_data(value: str) -> bool:
    """A missing key that is a name explains the error; one that is a number or random is data."""
    return (
        shapes.is_uuid(value)
        or shapes.looks_assigned(value)
        or (value.isdigit() and len(value) >= _ID_DIGITS)
    )


STRUCTURE_RULES: tuple[Rule, ...] = (
    Rule(
        name="postgresql-row",
        reason="PostgreSQL's DETAIL prints the whole row that violated a constraint.",
        find=between(
            r"""failing\ row\ contains\ \((?![^()\n]{1,200}\)\ =\ \()
            | failing\ row\ contains\ \([^()\n]{1,200}\)\ =\ \(
            | duplicate\ key\ value\ is\ \(""",
            rf"\)\.?{_END_OF_DATA}",
        ),
        words=("failing", "duplicate"),
        leaks=(
            "DETAIL:  Failing row contains («17, Mia K, 1979-12-02, null»).",
            "DETAIL:  Failing row contains («17, first\nsecond line»).\nCONTEXT:  COPY",
        ),
        benign=("DETAIL:  Failing row contains (1, null).", "the row contains (at most) one value"),
    ),
    Rule(
        name="postgresql-key",
        reason="PostgreSQL's DETAIL prints the values of the key that collided or is missing.",
        find=between(
            r"\bkey\ \([^=\n]{1,200}\)=\(",
            rf"""\)(?=,?\ (?:already|is\ not|is\ still|conflicts|is\ duplicated|cannot))
            | \)\.?{_END_OF_DATA}""",
        ),
        hints=(")=(",),
        leaks=("DETAIL:  Key (lower(email))=(«mia@clinic.test») already exists.",),
        benign=("Key (id)=(17) is not present",),
    ),
    Rule(
        name="database-duplicate",
        reason="MySQL and MongoDB print the value that is there already, logs their input.",
        find=between(
            r"""duplicate\ entry\ ' | dup\ key:\ \{
            | incorrect\ [a-z]{2,12}\ value:\ '(?=[^\n]{0,400}'\ for\ column)
            | \bparameters:\ (?=\$1\ =)""",
            r"'\ for\ (?:key|column)|[\"}](?=\s*(?:\Z|[\r\n]|[\"',.)]))|[\r\n]|\\n",
        ),
        words=("duplicate", "dup", "parameters", "incorrect"),
        leaks=(
            "(1062, \"Duplicate entry '«Mia K»' for key 'patients.name'\")",
            'E11000 duplicate key error index: name_1 dup key: {« name: "Mia" »}',
        ),
        benign=("Duplicate entry '17' for key 'patients.PRIMARY'",),
    ),
    Rule(
        name="postgresql-copy",
        reason="COPY prints the line or the column that it could not take.",
        find=between(
            r"\bcopy\ \w{1,60},\ line\ \d{1,9}(?:,\ column\ \w{1,60})?:\ \"", rf"\"{_END_OF_DATA}|\\n|[\r\n]"
        ),
        words=("copy",),
        leaks=(
            'CONTEXT:  COPY patients, line 3, column born: "«1979-12-02»"',
            'CONTEXT:  COPY patients, line 3: "«17,"Kay, Mia",x»"',
        ),
        benign=("CONTEXT:  COPY patients, line 3",),
    ),
    Rule(
        name="sqlalchemy-parameters",
        reason="SQLAlchemy appends the bound values of the failed statement.",
        find=between(r"\[parameters:\ ", r"(?<=[)\]}])\](?!\w)"),
        words=("parameters",),
        leaks=(
            "[SQL: INSERT INTO t VALUES (?)]\n[parameters: «('Mia', 'x')»]\n(Background: ...)",
            "[parameters: «{'name': 'Mia', 'note': 'trunca»",
        ),
        benign=("[parameters: (1, None)]",),
    ),
    Rule(
        name="sql-literal",
        reason="Literal values inside a statement are data as bound ones are.",
        find=_sql_literals,
        words=("sql", "line", "statement"),
        leaks=(
            "[SQL: UPDATE p SET name = '«Mia Kay»' WHERE id = 3]",
            "LINE 1: INSERT INTO p VALUES ('«Mia Kay»')",
        ),
        benign=("[SQL: select * from audit_log]", "[SQL: select * from t where state = 'open']"),
    ),
    Rule(
        name="pydantic-input",
        reason="pydantic prints the value that failed validation.",
        find=between(r"\binput_value=", r",\ input_type=|[\r\n]|\\n", is_more_than_a_word),
        words=("input",),
        leaks=("[type=int_type, input_value=«'Mia Kay'», input_type=str]",),
        benign=(
            "[type=too_short, input_value=[], input_type=list]",
            "[type=int_parsing, input_value='old', input_type=str]",
        ),
    ),
    Rule(
        name="validation-input",
        reason="Lists of validation errors, as FastAPI returns them, and jsonschema print the input.",
        find=between(
            r"['\"]loc['\"]:[^\n]{0,400}?['\"]input['\"]:\s?|\bon\ instance[^\n]{0,200}:\n",
            r",\s?['\"](?:ctx|url|type|loc)['\"]|\}\]?\Z|\}[,\s]|\n\n",
            is_more_than_a_word,
        ),
        words=("loc", "instance"),
        leaks=("[{'type': 'int_parsing', 'loc': ('age',), 'msg': 'bad', 'input': «'Mia Kay'»}]",),
        benign=("[{'type': 'missing', 'loc': ('age',), 'msg': 'Field required', 'input': {}}]",),
    ),
    Rule(
        name="value-before-name",
        reason="Lists of settings tell the value first and then the name that makes it secret.",
        find=matching(
            r"""["']value["']\s?:\s?["'](?P<secret>[^"'\n]{3,200}+)["'],\s{0,8}["'](?:name|key|field)["']\s?:\s?["']
            [\w.-]{0,40}?(?i:password|passwd|secret|token|api_?key|credential)"""
        ),
        words=("value",),
        leaks=('{"value": "«mongoose»", "key": "db_password"}',),
        benign=('{"value": "mongoose", "key": "db_name"}',),
    ),
    Rule(
        name="header-value",
        reason="HTTP clients print the header value that they refuse, which is most often a credential.",
        find=between(
            r"(?:illegal|invalid)\ header\ value\ b?['\"](?:bearer\ |basic\ |token\ )?", r"\s*['\"](?:\W|\Z)"
        ),
        words=("header",),
        leaks=("Illegal header value b'Bearer «abc def» '",),
        benign=("Illegal header value b''",),
    ),
    Rule(
        name="looked-up-data",
        reason="KeyError prints the key: a name explains the error, a random or numeric key is data.",
        find=between(r"\bkeyerror(?::\ |\()['\"]", r"['\"]", _is_lookup_data),
        words=("keyerror",),
        leaks=("KeyError: '«7F3A9C21-4E0B-4D57-9A1C-0B6E55D3F812»'",),
        benign=("KeyError: 'LEDGER_PASSWORD'", "KeyError: 'row_17'"),
    ),
)

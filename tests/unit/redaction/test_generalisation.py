"""Secrets of no vendor that any rule names, in many notations: the rate at which they are found.

The secrets are random, the seed is fixed: the rates are the same in every run.
"""

from __future__ import annotations

import base64
import itertools
import random
import string
import uuid
from collections.abc import Callable, Sequence

import pytest

from techdeck_tasks.redaction import sanitize_message

ALPHANUMERIC = string.ascii_letters + string.digits
LEAST_RECALL = 0.98

Secret = Callable[[random.Random], str]


def of(characters: str, length: int) -> Secret:
    return lambda source: "".join(source.choice(characters) for _ in range(length))


UNLABELLED: dict[str, Secret] = {
    "base62 of 24": of(ALPHANUMERIC, 24),
    "base62 of 32": of(ALPHANUMERIC, 32),
    "base62 of 40": of(ALPHANUMERIC, 40),
    "base64 of 256 bits": lambda source: base64.b64encode(source.randbytes(32)).decode(),
    "base64url of 256 bits": lambda source: (
        base64.urlsafe_b64encode(source.randbytes(32)).decode().rstrip("=")
    ),
}
LABELLED: dict[str, Secret] = UNLABELLED | {
    "base62 of 20": of(ALPHANUMERIC, 20),
    "32 hex digits": of("0123456789abcdef", 32),
    "64 hex digits": of("0123456789abcdef", 64),
    "base36": of(string.ascii_lowercase + string.digits, 25),
    "licence": lambda source: "-".join(
        "".join(source.choice(string.ascii_uppercase) for _ in range(5)) for _ in range(5)
    ),
    "UUID": lambda source: str(uuid.UUID(bytes=source.randbytes(16), version=4)),
    "16 digits": of(string.digits, 16),
}
NAMES = (
    "acmeToken", "acme_token", "ACME_KEY", "acmeApiKey", "acme-api-key", "AcmeClientSecret", "acme_access_id",
    "acme.auth.token", "ACME_PASSWORD", "acmeSecretKey",
)  # fmt: skip
NOTATIONS = (
    '{n}="{s}"', "{n}={s}", "{n}: {s}", "{n}: '{s}'", '{{"{n}": "{s}"}}', "{{'{n}': '{s}', 'page': 2}}",
    '{{\\"{n}\\": \\"{s}\\"}}', "{n} := `{s}`", '"{n}" => "{s}"', 'String {n} = "{s}";', "export {n}={s}",
    "--{n} {s}", "--{n}={s}", "<{n}>{s}</{n}>", '<add key="{n}" value="{s}" />',
    '{{"name": "{n}", "value": "{s}"}}',
    'System.setProperty("{n}", "{s}")', "GET /v1?{n}={s}&page=2", "{n}%3D{s}%26page%3D2",
    "connect({n}='{s}', timeout=3)",
    'variable {n} {{ default = "{s}" }}', '{n} ::= "{s}"', "{n} ?= {s}", '{{"{n}": {{"value": "{s}"}}}}',
    "<entry key='{n}'>{s}</entry>", 'let {n} = String::from("{s}");',
    '    client = Client({n}="{s}")\nValueError: no', "[parameters: ({n!r}, {s!r})]",
)  # fmt: skip
SENTENCES = (
    "KeyError: '{s}'",
    "403 for https://api.test/v2/rows?api_key={s}&page=2",
    "{{'fault': {{'text': 'Wrong API key given: {s}.', 'kind': 'refused'}}}}",
    "Illegal header value b'Bearer {s} '",
    "when calling PutObject: credentials {s} do not exist in our records",
    "raised CallError(\"headers={{'Authorization': 'Bearer {s}', 'Accept': '*/*'}}\")",
    '{{"exc_type": "OSError", "exc_message": ["stale credential {s}"]}}',
    "curl -H 'X-Api-Key: {s}' https://api.test",
    "redis://:{s}@cache:6379/0",
    "DETAIL:  Failing row contains (1, {s}).",
    "[SQL: insert into t values (?)]\n[parameters: ('{s}',)]",
    "Cookie: session={s}; theme=dark",
)
BARE = (
    "{s}", "bad value {s} seen", "ValueError: cannot read '{s}' as a number",
    '{{"problem": "odd row", "row": {{"remark": "{s}"}}}}', "call({s})", "<v>{s}</v>", "log: {s}.",
)  # fmt: skip


def filling(text: str, name: str = "") -> Callable[[str], str]:
    return lambda secret: text.format(n=name, s=secret)


def recall(secrets: dict[str, Secret], texts: Sequence[Callable[[str], str]]) -> tuple[float, list[str]]:
    source = random.Random("recall")
    cases = [(text, make(source)) for text, make, _ in itertools.product(texts, secrets.values(), range(3))]
    missed = [text(secret) for text, secret in cases if secret in sanitize_message(text(secret))]
    return 1 - len(missed) / len(cases), missed[:5]


def test_a_secret_under_a_telling_name_is_found_in_every_notation() -> None:
    texts = [filling(notation, name) for name, notation in itertools.product(NAMES, NOTATIONS)]
    found, missed = recall(LABELLED, texts)
    assert found >= LEAST_RECALL, missed


def test_a_secret_in_a_telling_place_is_found() -> None:
    found, missed = recall(LABELLED, [filling(text) for text in SENTENCES])
    assert found >= LEAST_RECALL, missed


def test_a_random_string_without_a_name_is_found() -> None:
    found, missed = recall(UNLABELLED, [filling(text) for text in BARE])
    assert found >= 0.95, missed


@pytest.mark.parametrize(
    "password", ["hunter2", "mongoose", "Passw0rd!", "h,e;nry", "tr0ub4dor&3", "correct-horse"]
)
@pytest.mark.parametrize(
    "text",
    [
        '{{"password": "{p}"}}',
        "password='{p}'",
        "postgres://app:{p}@db:5432/audit",
        "amqp://app:{p}@broker//",
        "curl -u 'mia:{p}' https://api.test",
        "ALTER ROLE app PASSWORD '{p}'",
        "sentinel://:x@s1:26379;sentinel://:{p}@s2:26379",
        "contraseña: {p}",
        "пароль: {p}",
        "mot de passe : {p}",
        "OrderedDict([('password', '{p}'), ('port', 1)])",
        '{{"password": {{"value": "{p}"}}}}',
        '{{"value": "{p}", "key": "db_password"}}',
        "Command '['mysql', '-p{p}', '-h', 'db']' died with <Signals.SIGKILL: 9>.",
    ],
)
def test_a_weak_password_is_found_by_its_place(text: str, password: str) -> None:
    assert password not in sanitize_message(text.format(p=password))


# Cells of somebody's table, each as a parser, a validator or a database prints what it refuses.
REFUSALS = (
    'psycopg.errors.InvalidTextRepresentation: invalid input syntax for type integer: "{p}"',
    'value too long for type character varying(9)\nCONTEXT:  COPY patients, line 3: "17,{p},x"',
    "asyncpg.exceptions.DataError: invalid input for query argument $1: '{p}' (an integer is required)",
    "(1366, \"Incorrect integer value: '{p}' for column 'age' at row 1\")",
    "(1292, \"Truncated incorrect DOUBLE value: '{p}'\")",
    "Conversion failed when converting the varchar value '{p}' to data type int.",
    "String or binary data would be truncated in table 'x', column 'n'. Truncated value: '{p}'.",
    "{{'code': 11000, 'keyPattern': {{'email': 1}}, 'keyValue': {{'email': '{p}'}}}}",
    "jsonschema.exceptions.ValidationError: '{p}' is not of type 'integer'",
    "'{p}' does not match '^[0-9]+$'",
    "pandera.errors.SchemaError: Column 'name' failed str_length(0, 3) failure cases: {p}, Bob Ray",
    "ValueError: could not convert string to float: '{p}'",
    "ValueError: invalid literal for int() with base 10: '{p}'",
    'ValueError: Unable to parse string "{p}" at position 3',
    "ValueError: time data '{p}' does not match format '%Y-%m-%d'",
    "polars.exceptions.ComputeError: could not parse `{p}` as dtype `i64` at column 'age'",
    "conversion from `str` to `i64` failed in column 'a' for 1 out of 1 values: [\"{p}\"]",
    "pyarrow.lib.ArrowInvalid: Could not convert '{p}' with type str: tried to convert to int64",
    "pyarrow.lib.ArrowInvalid: CSV parse error: Expected 3 columns, got 4: {p},1979,x",
    "failed to parse field [age] in document with id '3'. Preview of field's value: '{p}'",
    "PID|1||00451278^^^HOSP^MR||{p}^^^^||19791202|F",
    '{{"resourceType": "Patient", "name": [{{"family": "{p}", "given": ["Mia"]}}]}}',
)


@pytest.mark.parametrize("cell", ["Mia Kay", "KAY-SMITH, MIA", "Søren Ørsted", "mia kay"])
@pytest.mark.parametrize("text", REFUSALS)
def test_a_refused_cell_is_not_printed(text: str, cell: str) -> None:
    assert cell not in sanitize_message(text.format(p=cell))

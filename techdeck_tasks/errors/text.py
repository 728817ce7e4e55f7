"""The text of an exception without the data it was about.

Some libraries put rows, parameters, inputs or whole statements into their messages. Patterns cannot tell a
name from any other word, so these parts are cut where the text is taken, by what is known of each library.
The result is not yet redacted: pass it through `sanitize_message`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from techdeck_tasks.errors.anatomy import attributes_of, named_kind
from techdeck_tasks.redaction.foreign import dotted_name, is_order, mro_of, short_name

MAX_TEXT_LENGTH = 20_000
"""Characters of a foreign text that are looked at; longer is cut before anything is searched in it."""

_TEXT_ATTRIBUTE = "_techdeck_text"
_MAX_MEMBERS = 5
_KEYED_BY_INPUT = frozenset({"extra_forbidden", "unexpected_keyword_argument", "invalid_key"})
_PARTS_OF_REQUEST = frozenset({"body", "query", "path", "header", "cookie"})
_CUT = "[...]"
_LITERAL = re.compile(r"\"[^\"]*(?:\"|$)|'[^']*(?:'|$)|`[^`]*(?:`|$)|“[^”]*(?:”|$)")
_STATEMENT = re.compile(r"\s*(?:\[SQL:|\[parameters:|\(?Background on this error|Original exception was)")
_QUERY = re.compile(r"(https?://[^\s'\"?#]*)[?#][^\s'\")]*|(\burl: [^\s'\"?#]*)[?#][^\s'\")]*")

# The double-quoted words of these messages are objects of the schema, never values.
_NAMES_OBJECTS = frozenset(
    (
        "23001",
        "23502",
        "23503",
        "23505",
        "23514",
        "23P01",
        "3D000",
        "3F000",
        "42501",
        "42704",
        "42710",
        "42P01",
        "42P04",
        "42P06",
        "42P07",
    )
)
_FREE_TEXT_CLASSES = ("P0", "F0", "38", "HV")


def text_of(error: BaseException) -> str:
    """Return what `error` says, without rows, parameters, statements and input values. Never raises.

    Taken once and kept with the exception: one failure asks for it from many sides, and the text of a
    validator may take seconds to build.
    """
    attributes = attributes_of(error)
    known = dict.get(attributes, _TEXT_ATTRIBUTE)
    if type(known) is str:
        return known
    text = _read_text(error)
    dict.__setitem__(attributes, _TEXT_ATTRIBUTE, text)
    return text


def _read_text(error: BaseException) -> str:
    try:
        extractor = _extractor_of(type(error))
        text = extractor(error) if extractor is not None else str(error)
        # The characters themselves: a subclass of str may answer anything.
        return str.__str__(text)[:MAX_TEXT_LENGTH]
    except BaseException as trouble:
        if is_order(trouble):
            raise
        return "(its text could not be read)"  # the type still tells


def _of_psycopg(error: BaseException) -> str:
    sqlstate = getattr(error, "sqlstate", None)
    if not isinstance(sqlstate, str):
        # From the client itself, or from connecting: the first line has no data, those below may.
        return _LITERAL.sub(_CUT, _first_line(str(error)))
    name = f"SQLSTATE {sqlstate} {type(error).__name__}"
    if sqlstate.startswith(_FREE_TEXT_CLASSES):
        return name  # RAISE and foreign routines say what their author liked
    diagnosis: Any = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None) or _first_line(str(error))
    return f"{name}: {primary if sqlstate in _NAMES_OBJECTS else _between_quotes(primary)}"


def _between_quotes(text: str) -> str:
    # From the first quote to the last: a value may hold quotes itself, and PostgreSQL does not escape them.
    begin = text.find('"')
    if begin < 0:
        return _LITERAL.sub(_CUT, text)
    end = text.rfind('"')
    return text[:begin] + _CUT + (text[end + 1 :] if end > begin else "")


def _of_statement(error: BaseException) -> str:
    original = getattr(error, "orig", None)
    if isinstance(original, BaseException):
        return f"({dotted_name(type(original))}) {_without_literals(original)}"
    return _of_sqlalchemy(error)


def _without_literals(error: BaseException) -> str:
    # A driver that is not known, such as sqlite3, quotes values and names alike.
    return text_of(error) if _extractor_of(type(error)) else _LITERAL.sub(_CUT, _first_line(str(error)))


def _of_sqlalchemy(error: BaseException) -> str:
    text = str(error)[:MAX_TEXT_LENGTH]
    return re.sub(r"\([^()\n]*\)", f"({_CUT})", _first_line(_STATEMENT.split(text, maxsplit=1)[0]))


def _of_pydantic(error: BaseException) -> str:
    errors: Any = error
    problems: list[Any]
    try:
        problems = errors.errors(include_input=False, include_url=False, include_context=False)
    except TypeError:  # fastapi's form takes no arguments
        problems = list(errors.errors())
    title = getattr(error, "title", None) or type(error).__name__
    return f"{len(problems)} invalid in {title}: " + "; ".join(_problems(problems))


def _problems(problems: Iterable[Any]) -> Iterable[str]:
    for number, problem in enumerate(problems):
        if number == _MAX_MEMBERS:
            yield "and more"
            return
        yield f"{_place(problem)}: {problem.get('type', 'invalid')}"


def _place(problem: Mapping[str, Any]) -> str:
    parts = declared_parts(problem)
    # Only the outermost name is surely a field: a deeper one may be a key of the data.
    fields = 2 if parts and parts[0] in _PARTS_OF_REQUEST else 1
    return ".".join(
        str(part) if depth < fields or isinstance(part, int) else "*" for depth, part in enumerate(parts)
    )


def _of_pandera(error: BaseException) -> str:
    counts = getattr(error, "error_counts", None)
    if isinstance(counts, dict):
        return "the data do not fit the schema: " + ", ".join(
            f"{name} {count}" for name, count in counts.items()
        )
    reason = getattr(error, "reason_code", None)
    check = getattr(error, "check", None)
    column = getattr(getattr(error, "schema", None), "name", None)
    named = getattr(check, "name", None) or (check if isinstance(check, str) else type(check).__name__)
    return f"the data do not fit the schema: {getattr(reason, 'name', 'check')} of {column}, check {named}"


def _of_polars(error: BaseException) -> str:
    said, bracket, _ = _first_line(str(error)).partition("[")
    return _LITERAL.sub(_CUT, said) + (_CUT if bracket else "")


def _of_http(error: BaseException) -> str:
    return _QUERY.sub(lambda found: f"{found[1] or found[2]}?{_CUT}", _first_line(str(error)))


def _of_max_retries(error: BaseException) -> str:
    return str(error).partition(" args:")[0]


def _of_called_process(error: BaseException) -> str:
    return f"a command ended with status {getattr(error, 'returncode', None)}"


def _of_expired(error: BaseException) -> str:
    return f"a command took longer than {getattr(error, 'timeout', None)} s"


def _of_group(error: BaseException) -> str:
    members: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    said = "; ".join(f"{short_name(type(member))}: {text_of(member)}" for member in members[:_MAX_MEMBERS])
    more = f"; and {len(members) - _MAX_MEMBERS} more" if len(members) > _MAX_MEMBERS else ""
    return f"{getattr(error, 'message', 'group')} ({len(members)}): {said}{more}"


def _first_line(text: str) -> str:
    return text[:MAX_TEXT_LENGTH].strip().partition("\n")[0]


def declared_parts(problem: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the place of a pydantic problem without a last name that only the input has."""
    parts = tuple(problem.get("loc", ()))
    return parts[:-1] if problem.get("type") in _KEYED_BY_INPUT else parts


Extractor = Callable[[BaseException], str]

_EXTRACTORS: dict[str, Extractor] = {
    "psycopg.Error": _of_psycopg,
    "sqlalchemy.exc.StatementError": _of_statement,
    "sqlalchemy.exc.SQLAlchemyError": _of_sqlalchemy,
    "pydantic_core._pydantic_core.ValidationError": _of_pydantic,
    "fastapi.exceptions.ValidationException": _of_pydantic,
    "pandera.errors.SchemaError": _of_pandera,
    "pandera.errors.SchemaErrors": _of_pandera,
    "polars.exceptions.PolarsError": _of_polars,
    "requests.exceptions.RequestException": _of_http,
    "httpx.HTTPError": _of_http,
    "urllib3.exceptions.HTTPError": _of_http,
    "aiohttp.client_exceptions.ClientError": _of_http,
    "celery.exceptions.MaxRetriesExceededError": _of_max_retries,
    "subprocess.CalledProcessError": _of_called_process,
    "subprocess.TimeoutExpired": _of_expired,
    "builtins.BaseExceptionGroup": _of_group,
}

_MAX_CACHED_TYPES = 4096
_cache: dict[type, Extractor | None] = {}


def _extractor_of(kind: type[BaseException]) -> Extractor | None:
    kind = named_kind(kind)
    try:
        return _cache[kind]
    except KeyError:
        pass
    names = map(dotted_name, mro_of(kind))
    found = next((_EXTRACTORS[name] for name in names if name in _EXTRACTORS), None)
    if len(_cache) >= _MAX_CACHED_TYPES:
        # Celery's JSON result back end makes a new type for each exception it cannot import.
        _cache.clear()
    _cache[kind] = found
    return found

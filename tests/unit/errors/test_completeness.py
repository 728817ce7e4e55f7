"""Every exception class of every installed driver is recognised. A new version's new class fails here."""

from __future__ import annotations

import builtins
import importlib

import pytest

from techdeck_tasks.errors import Verdict, lookup
from techdeck_tasks.errors.anatomy import is_open
from techdeck_tasks.errors.mappings import BUILTIN_MAPPINGS
from techdeck_tasks.errors.recognition import UNMAPPED, Recognition

MODULES_OF_DRIVERS = {
    "asyncio": ["asyncio"],
    "concurrent": ["concurrent.futures", "concurrent.futures.process"],
    "json": ["json"],
    "ssl": ["ssl"],
    "socket": ["socket"],
    "urllib": ["urllib.error"],
    "http": ["http.client", "http.cookies"],
    "celery": ["celery.exceptions", "celery.app.base", "celery.beat", "celery.platforms", "celery.schedules"],
    "kombu": ["kombu", "kombu.exceptions", "kombu.transport.redis"],
    "billiard": ["billiard.exceptions", "billiard.einfo", "billiard.pool"],
    "amqp": ["amqp.exceptions"],
    "redis": ["redis", "redis.asyncio", "redis.cluster", "redis.sentinel", "redis.auth.err", "redis.event"],
    "sqlalchemy": ["sqlalchemy", "sqlalchemy.orm.exc", "sqlalchemy.dialects.postgresql"],
    "psycopg": ["psycopg", "psycopg.errors"],
    "requests": ["requests"],
    "httpx": ["httpx"],
    "httpcore": ["httpcore"],
    "urllib3": ["urllib3", "urllib3.util.ssl_match_hostname"],
    "aiohttp": ["aiohttp"],
    "pydantic": ["pydantic", "pydantic.errors"],
    "pydantic_core": ["pydantic_core"],
    "pandera": ["pandera.polars", "pandera.errors"],
    "polars": ["polars", "polars.exceptions"],
    "cryptography": ["cryptography.exceptions", "cryptography.fernet", "cryptography.x509.verification"],
    "fsspec": ["fsspec", "fsspec.exceptions", "fsspec.asyn", "fsspec.implementations.http"],
    "fastapi": ["fastapi", "fastapi.exceptions"],
    "starlette": ["starlette.applications", "starlette.exceptions", "starlette.responses"],
}

NEVER_SEEN = {
    "pydantic.v1": "the old pydantic inside the new one, which some libraries import and nothing here uses",
    "aiohttp.web": "aiohttp's server, which nothing here runs",
    "sqlalchemy.dialects.postgresql.asyncpg": "defined for a driver that is not used",
}


def classes_below(kind: type[BaseException]) -> set[type[BaseException]]:
    found: set[type[BaseException]] = set()
    pending = [kind]
    while pending:
        for child in type.__subclasses__(pending.pop()):
            # Other tests' classes may raise when they are looked at; no driver's do.
            if is_open(child) and child not in found:
                found.add(child)
                pending.append(child)
    return found


def classes_of(driver: str) -> list[type[BaseException]]:
    for module in MODULES_OF_DRIVERS[driver]:
        importlib.import_module(module)
    return sorted(
        (
            kind
            for kind in classes_below(BaseException)
            if kind.__module__.split(".")[0] == driver
            and not kind.__name__.startswith("_")
            and not kind.__module__.startswith(tuple(NEVER_SEEN))
        ),
        key=lambda kind: (kind.__module__, kind.__qualname__),
    )


def verdict_of(kind: type[BaseException]) -> Verdict:
    recognition = Recognition()
    try:
        bare = kind.__new__(kind)  # without its arguments: what is left is the least that can be known
    except TypeError:  # pydantic's own forbid that, and are mapped without looking at them
        target = recognition.kind(kind).targets[0]
        return target if isinstance(target, Verdict) else Verdict(str(target))
    return recognition.verdict(bare)


@pytest.mark.parametrize("driver", MODULES_OF_DRIVERS)
def test_every_class_of_the_driver_is_mapped(driver: str) -> None:
    classes = classes_of(driver)
    assert classes, f"{driver} defines no exceptions: its modules in this test are out of date"
    unmapped = [f"{kind.__module__}.{kind.__qualname__}" for kind in classes if verdict_of(kind) is UNMAPPED]
    assert unmapped == []


@pytest.mark.parametrize("driver", MODULES_OF_DRIVERS)
def test_an_internal_error_is_deliberate_and_says_why(driver: str) -> None:
    verdicts = {kind: verdict_of(kind) for kind in classes_of(driver)}
    silent = [kind for kind, said in verdicts.items() if said.code == "INTERNAL_ERROR" and not said.reason]
    assert silent == []


def test_every_builtin_exception_is_mapped() -> None:
    found = [
        kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)
    ]
    # These two say nothing; a group is judged by its members.
    open_ended = {BaseException, Exception, BaseExceptionGroup, ExceptionGroup}
    assert [kind for kind in found if kind not in open_ended and verdict_of(kind) is UNMAPPED] == []


def test_every_sqlstate_psycopg_knows_is_judged_by_its_class() -> None:
    by_class: dict[str, set[str]] = {}
    for kind in classes_of("psycopg"):
        sqlstate = getattr(kind, "sqlstate", None)
        if sqlstate:
            by_class.setdefault(sqlstate[:2], set()).add(verdict_of(kind).code)
    assert by_class["08"] <= {"CONNECTION_ERROR", "SERVICE_UNAVAILABLE"}
    assert by_class["22"] == {"DATA_PROCESSING_ERROR"}
    assert by_class["23"] == {"VALIDATION_ERROR"}
    assert by_class["28"] == {"AUTH_ERROR"}
    assert by_class["53"] == {"SERVICE_UNAVAILABLE"}


def test_every_mapping_names_a_registered_code() -> None:
    targets = [target.code if isinstance(target, Verdict) else target for target in BUILTIN_MAPPINGS.values()]
    for code in {target for target in targets if isinstance(target, str)}:
        lookup(code)

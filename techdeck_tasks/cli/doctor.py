"""``techdeck doctor``: is everything as it must be, and if not, what is to be done."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import cast

import typer
from redis import Redis
from redis.exceptions import RedisError
from rich.table import Table
from rich.text import Text
from sqlalchemy import text

from techdeck_tasks.celeryconfig import AUDIT_QUEUE, PIPELINE_QUEUE
from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.exits import Exit
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.errors import TechDeckError
from techdeck_tasks.keyring import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    CHECKPOINT_PUBLIC_KEYS,
    MESSAGE_KEYS,
    KeySet,
    public_half,
)
from techdeck_tasks.pipeline.data.data_url import is_remote, local_path
from techdeck_tasks.pipeline.upkeep import RECONCILE, RECONCILE_S
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import unknown_settings
from techdeck_tasks.storage.database import transaction
from techdeck_tasks.storage.migration import pending
from techdeck_tasks.tasks.broker import outages_told
from techdeck_tasks.tasks.turns import BEAT_BEGAN, LAST_RUN

MAX_SKEW_S = 2.0
MIN_FREE_BYTES = 1 << 30
LONG_QUEUE = 1000
PING_S = 2.0
# The lists that the transport makes of a queue, one a priority.
_PRIORITY_SUFFIXES = ("", "\x06\x163", "\x06\x166", "\x06\x169")


class Verdict(StrEnum):
    """How a check came out; only `BAD` makes the command fail."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `remedy` is empty where there is nothing to do."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


Checks = Iterator[Check]


def doctor(json_output: JsonOption = False) -> None:
    """Check settings, keys, servers, workers and disk. Exit code 0: nothing is bad, 1: something is."""
    runtime = runtime_of(create_app())
    checks = examine(runtime)
    if json_output:
        print_json([asdict(check) for check in checks])
    else:
        _show(checks)
    if any(check.verdict is Verdict.BAD for check in checks):
        raise typer.Exit(Exit.FAILED)


def examine(runtime: Runtime) -> list[Check]:
    """Make every check that can be made; one that fails keeps none of the others from being made."""
    checks = [
        Check(
            "settings",
            Verdict.OK,
            f"environment {runtime.settings.environment}, tenant {runtime.settings.tenant}",
        )
    ]
    for name, near in unknown_settings(os.environ):
        if near:  # the names that Kubernetes gives to its services are like no setting
            said = f"{name} in the environment is no setting and changes nothing"
            checks.append(Check("settings", Verdict.WARN, said, f"did you mean {near}?"))
    for name, examination in _EXAMINATIONS.items():
        try:
            checks += examination(runtime)
        except (TechDeckError, RedisError, OSError) as error:
            checks.append(Check(name, Verdict.BAD, _said(error), _REMEDIES[name]))
    return checks


def _keys(runtime: Runtime) -> Checks:
    folder = runtime.settings.keys_dir
    remedy = "techdeck keys generate, or mount the keys and set TECHDECK_KEYS_DIR"
    public: KeySet | None = None
    for name in (MESSAGE_KEYS, BLIND_INDEX_KEYS, AUDIT_PUBLIC_KEYS, CHECKPOINT_PUBLIC_KEYS):
        try:
            keys = KeySet.load(folder / name)
        except TechDeckError as error:
            yield Check(f"key {name}", Verdict.BAD, error.message, remedy)
        else:
            public = keys if name == AUDIT_PUBLIC_KEYS else public
            yield Check(f"key {name}", Verdict.OK, f"{len(keys.keys)} keys, {keys.active} is active")
    private = runtime.settings.reader_keys_dir / AUDIT_PRIVATE_KEYS
    if not private.exists():
        yield Check("reader's key", Verdict.OK, "not on this machine: documents of the audit log stay sealed")
    elif public is not None:
        halves = {key_id: public_half(key) for key_id, key in KeySet.load(private).keys.items()}
        if all(halves.get(key_id) == key for key_id, key in public.keys.items()):
            yield Check("reader's key", Verdict.OK, "opens what producers seal")
        else:
            yield Check(
                "reader's key",
                Verdict.BAD,
                "is not the pair of audit-public.json: new rows cannot be read",
                "restore both halves from the same backup",
            )


def _redis(runtime: Runtime) -> Checks:
    server = runtime.redis.info()
    yield Check("Redis", Verdict.OK, f"version {server['redis_version']} answers")
    policy = str(server.get("maxmemory_policy"))
    yield _judge(
        "Redis eviction",
        policy == "noeviction",
        f"maxmemory-policy {policy}",
        "set maxmemory-policy noeviction: any other loses messages when memory is short",
    )
    yield _judge(
        "Redis persistence",
        bool(server.get("aof_enabled")),
        "append-only file on" if server.get("aof_enabled") else "append-only file off",
        "set appendonly yes: without it a restart loses the queues",
    )
    seconds, microseconds = runtime.redis.time()
    yield _skew("Redis clock", seconds + microseconds / 1e6 - time.time())
    for queue in (PIPELINE_QUEUE, AUDIT_QUEUE):
        waiting = sum(int(runtime.redis.llen(queue + suffix)) for suffix in _PRIORITY_SUFFIXES)
        verdict = Verdict.OK if waiting < LONG_QUEUE else Verdict.WARN
        yield Check(
            f"queue {queue}",
            verdict,
            f"{waiting} messages wait",
            "" if waiting < LONG_QUEUE else "add workers",
        )


def _postgresql(runtime: Runtime) -> Checks:
    with transaction(runtime.engine) as connection:
        version = connection.scalar(text("SHOW server_version"))
        now = connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
        role, is_super = connection.execute(
            text("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user")
        ).one()
    yield Check("PostgreSQL", Verdict.OK, f"version {version} answers")
    yield _skew("PostgreSQL clock", float(now or 0) - time.time())
    yield _judge(
        "PostgreSQL schema",
        not pending(runtime.engine),
        "is at its newest revision" if not pending(runtime.engine) else "is not the one this version needs",
        "techdeck db upgrade",
    )
    yield Check(
        "PostgreSQL role",
        Verdict.WARN if is_super else Verdict.OK,
        f"{role}, a superuser" if is_super else str(role),
        "use a role of its own: a superuser may change the audit log" if is_super else "",
    )


def _workers(runtime: Runtime) -> Checks:
    assert runtime.app is not None
    with outages_told("inspect"):
        replies = runtime.app.control.inspect(timeout=PING_S).active_queues() or {}
    for queue in (PIPELINE_QUEUE, AUDIT_QUEUE):
        nodes = sorted(
            node for node, queues in replies.items() if any(one["name"] == queue for one in queues)
        )
        yield _judge(
            f"{queue} worker",
            bool(nodes),
            f"{', '.join(nodes)} answers" if nodes else f"none answers within {PING_S:g} s",
            f"techdeck worker {queue}",
        )
    yield judge_beat(_age_s(runtime.redis, BEAT_BEGAN), _age_s(runtime.redis, LAST_RUN + RECONCILE))


def judge_beat(began_s: float | None, ran_s: float | None) -> Check:
    """Judge by how many seconds ago a beat was started, and its tasks ran; None: never. Pure."""
    if ran_s is not None and ran_s < 4 * RECONCILE_S:
        return Check("beat", Verdict.OK, f"its tasks ran {ran_s:.0f} s ago")
    if began_s is not None and began_s < 2 * RECONCILE_S:
        found = f"starting: it began {began_s:.0f} s ago, and no task of it was run yet"
        return Check("beat", Verdict.WARN, found, f"look again in {RECONCILE_S} s")
    found = "its tasks were never run" if ran_s is None else f"its tasks ran {ran_s:.0f} s ago"
    remedy = "techdeck worker beat, and a pipeline worker that has a process to spare"
    return Check("beat", Verdict.BAD, found, remedy)


def _age_s(redis: Redis, key: str) -> float | None:
    seen = cast("bytes | None", redis.get(key))
    return None if seen is None else time.time() - int(seen)


def _disk(runtime: Runtime) -> Checks:
    spool = runtime.settings.audit_spool_dir
    waiting = sum(path.stat().st_size for path in spool.rglob("*") if path.is_file()) if spool.is_dir() else 0
    yield Check(
        "audit spool",
        Verdict.WARN if waiting else Verdict.OK,
        f"{waiting:,} bytes wait to be sent",
        "they are sent within the hour once Redis answers; look after Redis if it grows" if waiting else "",
    )
    folders = {"audit spool": spool}
    if not is_remote(runtime.settings.artifact_url):
        folders["artifacts"] = local_path(runtime.settings.artifact_url)
    for name, folder in folders.items():
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        free = shutil.disk_usage(there).free
        yield _judge(
            f"disk of {name}",
            free >= MIN_FREE_BYTES,
            f"{free / (1 << 30):.1f} GiB free",
            f"free space on {there}",
        )


_EXAMINATIONS: dict[str, Callable[[Runtime], Checks]] = {
    "keys": _keys,
    "Redis": _redis,
    "PostgreSQL": _postgresql,
    "workers": _workers,
    "disk": _disk,
}
_REMEDIES = {
    "keys": "techdeck keys generate",
    "Redis": "start Redis, or set TECHDECK_REDIS_URL",
    "PostgreSQL": "start PostgreSQL, or set TECHDECK_DATABASE_URL",
    "workers": "start Redis first: workers are asked through it",
    "disk": "let this user read the folder",
}


def _judge(name: str, good: object, found: str, remedy: str) -> Check:
    return Check(name, Verdict.OK, found) if good else Check(name, Verdict.BAD, found, remedy)


def _skew(name: str, seconds: float) -> Check:
    return _judge(
        name,
        abs(seconds) < MAX_SKEW_S,
        f"differs by {abs(seconds):.3f} s from this machine's",
        "let NTP keep the clocks: leases and retries are timed by them",
    )


def _said(error: Exception) -> str:
    return error.message if isinstance(error, TechDeckError) else f"does not answer ({type(error).__name__})"


def _show(checks: list[Check]) -> None:
    styles = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.BAD: "bold red"}
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        told = Text(check.found)
        if check.remedy:
            told.append(f"\n→ {check.remedy}", style="bold")
        table.add_row(Text(check.verdict, style=styles[check.verdict]), check.name, told)
    out.print(table)

"""``techdeck demo``: everything once, on real data, with real servers, and nothing left behind."""

from __future__ import annotations

import getpass
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.rule import Rule
from sqlalchemy import text

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.reading.entry import AuditEntry
from techdeck_tasks.audit.reading.search import AuditFilter
from techdeck_tasks.cli.console import counted, out
from techdeck_tasks.cli.demonstration.clinic import Clinic
from techdeck_tasks.cli.demonstration.dashboard import serve_dashboard
from techdeck_tasks.cli.demonstration.definitions import progression, strict
from techdeck_tasks.cli.demonstration.patients import PLANTED_EMAIL, SPOILED_ROWS, write_patients
from techdeck_tasks.cli.exits import Exit
from techdeck_tasks.cli.pipelines import follow, submit
from techdeck_tasks.cli.tables import show_audit, show_run
from techdeck_tasks.devservices.stack import Stack
from techdeck_tasks.pipeline.definition import load_definition
from techdeck_tasks.pipeline.runs.view import RunView
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.storage.database import transaction

OUTAGES = 2
_AUDIT_PATIENCE_S = 20.0


def demo(
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the data here; default: a temporary folder, removed at the end.")
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Then keep everything running and serve the dashboard until Ctrl-C.")
    ] = False,
) -> None:
    """Run two pipelines on real data: one recovers, one fails for good; show what is on record."""
    if data_dir is not None:
        _show(data_dir, web=web)
        return
    with tempfile.TemporaryDirectory(prefix="techdeck-demo-") as folder:
        _show(Path(folder), web=web)


def _show(folder: Path, *, web: bool) -> None:
    _headline("Starting PostgreSQL, Redis, pipeline worker, audit worker and beat")
    stack = Stack(
        folder,
        overrides={"default_retry_delay_seconds": "0.5"},
        on_step=lambda step: out.print(f"  {step}", soft_wrap=True),
    )
    with stack:
        assert stack.settings is not None
        runtime = runtime_of(create_app(stack.settings))
        data = folder / "demo"
        data.mkdir(exist_ok=True)
        patients = data / "patients.csv"
        rows = write_patients(patients)
        _headline("A pipeline whose source is down at first")
        out.print(
            f"  {rows} real patients, {SPOILED_ROWS} rows spoiled; the file server answers {OUTAGES} x 503"
        )
        with Clinic(patients, OUTAGES) as clinic:
            recovered = _run(runtime, data / "progression.yaml", progression(clinic.url, data))
        _headline("A pipeline that fails for good")
        out.print("  the same data, but its validation tolerates no bad row")
        failed = _run(runtime, data / "strict.yaml", strict(patients, data))
        _headline("What the audit log says, decrypted with the reader's key")
        entries = _audit_entries(runtime, expected=OUTAGES + 1)
        show_audit(out, entries)
        _headline("What PostgreSQL and Redis hold of it")
        leaked = _show_stored(runtime)
        _headline("Has anybody changed the log?")
        report = runtime.verify_audit()
        out.print(
            f"  audit verify: {counted(report.rows, 'row')} in {counted(report.writers, 'chain')}, "
            f"{counted(len(report.findings), 'finding')}"
        )
        if web:
            _headline("The dashboard")
            serve_dashboard(runtime)
        runtime.engine.dispose()
        _headline("Stopping what was started")
    ok = (
        recovered.state == "succeeded"
        and recovered.stage("load").attempt == OUTAGES
        and failed.state == "failed"
        and len(entries) >= OUTAGES + 1
        and report.ok
        and not leaked
    )
    if not ok:
        out.print("[red]the demo did not go as it must; see above[/]")
        raise typer.Exit(Exit.FAILED)
    out.print(
        "  done: one run recovered, one failed for good, every error is on record, the log is untouched"
    )


def _headline(title: str) -> None:
    out.print(Rule(title, align="left", style="cyan"))


def _run(runtime: Runtime, file: Path, definition: dict[str, Any]) -> RunView:
    file.write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
    run_id = submit(runtime, load_definition(file))
    view = follow(runtime, run_id)
    show_run(out, view)
    return view


def _audit_entries(runtime: Runtime, expected: int) -> list[AuditEntry]:
    wanted = AuditFilter(event_type=EventType.ERROR_HANDLING)
    count = text("SELECT count(*) FROM audit_event WHERE event_type = :event_type")
    deadline = time.monotonic() + _AUDIT_PATIENCE_S
    while time.monotonic() < deadline:
        # Counted in the clear: every search is itself recorded.
        with transaction(runtime.engine) as connection:
            if connection.execute(count, {"event_type": wanted.event_type}).scalar_one() >= expected:
                break
        time.sleep(0.1)
    return runtime.audit_reader(getpass.getuser()).search(wanted)[::-1]


def _show_stored(runtime: Runtime) -> bool:
    """Show one row as stored; tell whether the planted address is in any row or key."""
    with transaction(runtime.engine) as connection:
        row = connection.execute(
            text("SELECT event_id, error_code, sealed_document, row_hash FROM audit_event ORDER BY 1 LIMIT 1")
        ).one()
    out.print(f"  event {row.event_id}  code {row.error_code}")
    out.print(f"  sealed document  {row.sealed_document.hex()[:64]}…  ({len(row.sealed_document)} bytes)")
    out.print(f"  chain hash       {row.row_hash.hex()}")
    leaked = _database_has(runtime, PLANTED_EMAIL) or _redis_has(runtime, PLANTED_EMAIL)
    verdict = "[red]found[/]" if leaked else "[green]nowhere[/]"
    out.print(f"  a patient's address, in PostgreSQL and Redis: {verdict}")
    return leaked


def _database_has(runtime: Runtime, needle: str) -> bool:
    with transaction(runtime.engine) as connection:
        tables = connection.execute(
            text(
                "SELECT oid::regclass::text FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
        ).scalars()
        return any(
            connection.execute(
                text(f"SELECT EXISTS (SELECT 1 FROM {table} t WHERE t::text LIKE :needle)"),  # noqa: S608 - names from the catalogue
                {"needle": f"%{needle}%"},
            ).scalar_one()
            for table in tables
        )


def _redis_has(runtime: Runtime, needle: str) -> bool:
    return any(needle.encode() in (runtime.redis.dump(key) or b"") for key in runtime.redis.scan_iter())

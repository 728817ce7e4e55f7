"""What the API's reading costs at a million audit rows: p50 and p99 of each endpoint, over HTTP.

Server and client are threads of one process, on the embedded PostgreSQL and Redis: the figures include both.
Pages of the dashboard are measured beside the API.

Run: python -m benchmarks web; TECHDECK_BENCH_ROWS makes another number of rows.
"""

from __future__ import annotations

import logging
import os
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from sqlalchemy import text

from benchmarks.reading import START, database, fill
from techdeck_tasks.audit.compliance.store import ReportKind
from techdeck_tasks.devservices import DevServices
from techdeck_tasks.errors import ConnectionFailedError
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.pipeline.definition import parse_definition
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import load_settings
from techdeck_tasks.tasks.letters import Letter, LetterKind
from techdeck_tasks.web.app import create_web_app
from techdeck_tasks.web.auth import SESSION_COOKIE
from techdeck_tasks.web.server import make_server
from techdeck_tasks.web.sessions import SessionStore
from techdeck_tasks.web.tokens import Role, TokenStore

ROWS = int(os.environ.get("TECHDECK_BENCH_ROWS", "1_000_000"))
ROUNDS = 100
RUNS, LETTERS, BREAKERS, ALERTS = 2_000, 500, 50, 5_000
DEEP = (START + timedelta(days=6)).isoformat()

DEFINITION = {
    "name": "patients",
    "source": {"url": "s3://lab/patients.csv"},
    "stages": [
        {"name": "load", "stage": "dataset_load"},
        {
            "name": "save",
            "stage": "export",
            "needs": ["load"],
            "params": {"destination": "s3://out/a.parquet"},
        },
    ],
}

OVER_ALERTS = text("""
    INSERT INTO alert (alert_id, key, alert_type, subject, severity, state, message, items, held, missed,
        first_seen, last_seen, fired_at, resolved_at)
    SELECT gen_random_uuid(), 'breaker_open:s' || n, 'breaker_open', 's' || n, 'warning', 'resolved', 'open',
        '[]', 0, 2, moment, moment + interval '5 minutes', moment, moment + interval '7 minutes'
    FROM (SELECT n, now() - n * interval '10 minutes' AS moment FROM generate_series(1, :rows) AS n) AS rows
""")


def main() -> None:
    logging.disable()  # what is made to fail here is no news
    with TemporaryDirectory() as folder, DevServices() as urls, database(urls.database_url, "web") as engine:
        began = time.perf_counter()
        fill(engine, ROWS)
        keys = Path(folder)
        settings = load_settings(
            redis_url=urls.redis_url,
            database_url=engine.url.render_as_string(hide_password=False),
            keys_dir=keys / "producer",
            reader_keys_dir=keys / "reader",
            signing_keys_dir=keys / "signer",
            audit_spool_dir=keys / "spool",
            artifact_url=(keys / "artifacts").as_uri(),
            upload_dir=keys / "uploads",
            web_requests_per_minute=10_000_000,
        )
        generate_keys(settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir)
        runtime = runtime_of(create_app(settings))
        places = _furnish(runtime)
        print(f"{f'{ROWS:,} audit rows and the rest made':<44}{time.perf_counter() - began:>10.1f} s")
        with _clients(runtime) as (api, browser):
            _measure(api, browser, places)
        runtime.engine.dispose()


def _furnish(runtime: Runtime) -> dict[str, str]:
    """Make the other things that are read; return the ids of some."""
    definition = parse_definition(DEFINITION)
    for _ in range(RUNS):
        run_id, _ = runtime.pipeline_store.create_run(str(uuid.uuid4()), definition)
    for number in range(LETTERS):
        runtime.dead_letters.add(_letter(number))
    for number in range(BREAKERS):
        breaker = runtime.breakers.get(f"service-{number}")
        for _ in range(breaker.get_threshold()):
            breaker.record_failure()
    for number in range(500):
        facts = {"service": f"service-{number % 20}", "operation": "import"}
        runtime.handler.handle(ConnectionFailedError("the lab is away"), facts)
    runtime.flush()
    runtime.alert_evaluator.evaluate(timedelta(0))
    with runtime.engine.begin() as connection:
        connection.execute(OVER_ALERTS, {"rows": ALERTS})
        alert_id = connection.execute(text("SELECT alert_id FROM alert LIMIT 1")).scalar_one()
    runtime.reports.make(ReportKind.ON_DEMAND, START, START + timedelta(days=30), "bench")
    (report,) = runtime.reports.search(1)
    return {"run": run_id, "alert": str(alert_id), "report": report.report_id}


def _letter(number: int) -> Letter:
    return Letter.of(
        ConnectionFailedError("the lab is away"),
        kind=LetterKind.DEAD,
        task_name="lab.fetch",
        task_id=f"t-{number}",
        signature={"task": "lab.fetch", "args": [number], "kwargs": {}, "options": {}},
        service="lab",
        attempts=4,
        failed_at=datetime.now(UTC),
    )


@contextmanager
def _clients(runtime: Runtime) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Serve, and give a client of the API and one of the dashboard."""
    token, secret = TokenStore(runtime.engine, runtime.clock).create(
        "bench", list(Role), timedelta(hours=1), "bench"
    )
    session = SessionStore(runtime.redis, runtime.clock).open(token.token_id)
    server = make_server(create_web_app(runtime), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    shown, cookie = {"Authorization": f"Bearer {secret}"}, {SESSION_COOKIE: session.secret}
    with (
        httpx.Client(base_url=f"{url}/api/v1", headers=shown, timeout=60) as api,
        httpx.Client(base_url=url, cookies=cookie, timeout=60) as browser,
    ):
        yield api, browser
    server.should_exit = True
    thread.join(20)


def _measure(api: httpx.Client, browser: httpx.Client, places: dict[str, str]) -> None:
    deep = api.get("/errors", params={"limit": 50}).json()["next"]
    for _ in range(20):
        deep = api.get("/errors", params={"limit": 500, "cursor": deep}).json()["next"]
    for path, parameters in (
        ("/runs", {}),
        ("/runs", {"limit": 500}),
        (f"/runs/{places['run']}", {}),
        ("/schedules", {}),
        ("/statistics", {}),
        ("/trend", {"hours": 24}),
        ("/trend", {"hours": 720}),
        ("/alert-conditions", {}),
        ("/retries", {}),
        ("/alerts", {}),
        ("/alerts", {"resolved": True}),
        (f"/alerts/{places['alert']}", {}),
        ("/silences", {}),
        ("/breakers", {}),
        ("/breakers/service-7", {}),
        ("/dead-letters", {}),
        ("/interventions", {}),
        ("/quarantine", {}),
        ("/errors", {}),
        ("/errors", {"cursor": deep}),
        ("/errors", {"error_code": "AUTH_ERROR", "service": "service-5"}),
        ("/errors", {"service": "no-such-service"}),
        ("/audit", {}),
        ("/audit", {"limit": 500}),
        ("/audit", {"error_id": f"{ROWS // 2:032x}"}),
        ("/audit", {"until": DEEP}),
        ("/audit", {"user": "u7"}),
        ("/audit", {"severity": "critical", "hipaa_related": True}),
        ("/audit", {"pipeline_id": f"{ROWS // 200:0>36}"}),
        ("/audit", {"operation": "no-such-operation"}),
        ("/reports", {}),
        (f"/reports/{places['report']}", {}),
        ("/incidents", {}),
        ("/openapi.json", {}),
    ):
        _latency(api, path, parameters)
    for path in ("/", "/alerts", "/runs", f"/runs/{places['run']}", "/breakers", "/dead-letters", "/audit"):
        _latency(browser, path, {})


def _latency(client: httpx.Client, path: str, parameters: dict[str, Any]) -> None:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        response = client.get(path, params=parameters)
        times.append((time.perf_counter() - began) * 1000)
        assert response.status_code == httpx.codes.OK, response.text
    cuts = statistics.quantiles(times, n=100)
    shown = ", ".join(f"{name}={str(value)[:12]}" for name, value in parameters.items())
    what = f"{'page ' if client.base_url.path == '/' else ''}{path[:22]} {shown}"
    print(f"{what:<60}{cuts[49]:>9.1f} ms p50 {cuts[98]:>9.1f} ms p99", flush=True)


if __name__ == "__main__":
    main()

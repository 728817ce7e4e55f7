"""What real workers count is what they put on record."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from worker_site import make_sample, wait_until

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.writing.stream import STREAM, unpack
from techdeck_tasks.metrics.series import Kind
from techdeck_tasks.runtime import Runtime, runtime_of

if TYPE_CHECKING:
    from worker_site import Sample, Site


def errors_on_record(sample: Sample) -> Counter[str]:
    entries: Any = sample.redis.xrange(STREAM)
    records = [unpack(payload).record for _, fields in entries for payload in fields.values()]
    return Counter(str(r.error_code) for r in records if r.event_type == EventType.ERROR_HANDLING)


def counted(runtime: Runtime, kind: Kind) -> int:
    return sum(n for series, n in runtime.metrics.totals().items() if series.kind is kind)


def test_errors_are_the_audit_logs_rows_and_executions_add_the_successes(own_site: Site) -> None:
    worker = own_site.start_worker()
    sample = make_sample(own_site)
    runtime = runtime_of(sample.app)
    worker.wait_ready()
    began = datetime.now(UTC) - timedelta(minutes=1)
    results = [sample.task("ok").delay(number) for number in range(20)]
    results += [sample.task("flaky").delay(2) for _ in range(3)]
    results += [sample.task("never_again").delay() for _ in range(4)]
    results += [sample.task("foreign").delay()]
    for result in results:
        result.get(timeout=30, propagate=False)

    recorded = errors_on_record(sample)
    assert recorded.total() == 3 * 2 + 4 + 4
    # The last successes and retries are told a second after they happened, with nothing left to do.
    wait_until(lambda: counted(runtime, Kind.SUCCESS) == 23, "every success is counted")
    wait_until(lambda: counted(runtime, Kind.RETRY) == 3 * 2 + 3, "every retry is counted")
    statistics = runtime.metrics.get_error_statistics({"start": began, "end": datetime.now(UTC)})
    assert statistics["total_errors"] == recorded.total()
    by_code = {entry["error_code"]: entry["count"] for entry in statistics["top_error_codes"]}
    assert by_code == recorded
    assert statistics["error_rate"] == 100 * recorded.total() / (recorded.total() + 23)


def test_a_worker_that_is_told_to_stop_has_told_its_last_success(own_site: Site) -> None:
    worker = own_site.start_worker(concurrency=1)
    sample = make_sample(own_site)
    worker.wait_ready()
    for number in range(7):
        sample.run("ok", number)
    # Its answer comes after it has put the last result away: billiard, interrupted in that, deadlocks.
    assert sample.app.control.ping(["one@test"], timeout=10, limit=1)
    worker.process.terminate()
    worker.process.wait(30)
    assert counted(runtime_of(sample.app), Kind.SUCCESS) == 7

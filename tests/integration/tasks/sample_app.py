"""An application whose tasks fail in every way; workers and tests import it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import protected_tasks
import redis
from celery import Celery, Task
from celery.exceptions import Ignore, Reject

from techdeck_tasks.errors import RateLimitError, ServiceUnavailableError, TechDeckError
from techdeck_tasks.events import Event
from techdeck_tasks.resilience.backoff import Jitter, RetryPolicy
from techdeck_tasks.runtime import Runtime, install
from techdeck_tasks.settings import load_settings
from techdeck_tasks.tasks.base import TechDeckTask

SECRET = "sk-live-51H8canaryQZx0000000000000000"
"""What the redaction rules know."""

QUICK = RetryPolicy(
    max_retries=3, delay_s=0.1, base=1, cap_s=0.2, jitter=Jitter.NONE, budget_s=30, retry_after_cap_s=3
)
EVENTS = "test:events"
HOOKS = "test:hooks"


class UnpicklableError(Exception):
    """Cannot be rebuilt from its arguments, nor pickled."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__()
        self.held = lambda: (left, right)


class PatientError(Exception):
    """An application's own error."""


class Recorder:
    """A listener that lets the test see what happened inside the worker."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def on_event(self, event: Event) -> None:
        facts = {
            name: getattr(event, name, None) for name in ("operation", "attempt", "error_code", "outcome")
        }
        facts["delay_s"] = getattr(event, "delay_s", None)
        self._redis.rpush(EVENTS, json.dumps((type(event).__name__, facts)))


class SampleTask(TechDeckTask):
    """Notes in Redis what its hooks were told."""

    abstract = True
    breaker = False

    def on_retry_scheduled(
        self,
        error: TechDeckError,
        attempt: int,
        delay_s: float,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        _redis(self).rpush(f"{HOOKS}:{self.request.id}", f"retry {attempt} {error.error_code} {os.getpid()}")

    def on_given_up(self, error: TechDeckError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        _redis(self).rpush(f"{HOOKS}:{self.request.id}", f"given up {error.error_code} {os.getpid()}")
        if kwargs.get("slow_hook_s"):
            time.sleep(kwargs["slow_hook_s"])


def _redis(task: Task) -> redis.Redis:
    runtime: Runtime = task.app.techdeck_services
    return runtime.redis


def make_app() -> Celery:
    """Return the application, on the settings of the environment."""
    app = Celery("sample")
    runtime = install(app, load_settings())
    runtime.listeners.add(Recorder(runtime.redis))
    app.conf.worker_lost_wait = 0.3
    app.conf.task_queues = None
    app.conf.task_create_missing_queues = True
    app.conf.task_default_queue = "sample"
    register(app)
    protected_tasks.register(app)
    return app


def register(app: Celery) -> None:
    """Give `app` the tasks."""
    task = _decorator(app)

    @task
    def ok(value: Any = None) -> Any:
        return value

    @task
    def add(*numbers: Any) -> Any:
        total = 0
        for number in numbers:
            total += sum(number) if isinstance(number, list) else number
        return total

    @task(bind=True, retry=QUICK)
    def flaky(self: Task, times: int) -> int:
        if self.request.retries < times:
            raise ServiceUnavailableError("the lab is away", service_name="lab")
        return int(self.request.retries)

    @task(bind=True, retry=QUICK)
    def foreign(self: Task, times: int = 99) -> int:
        if self.request.retries < times:
            raise ConnectionError(f"connection refused by lab, password={SECRET}")
        return int(self.request.retries)

    @task(bind=True, retry=QUICK)
    def headers_after_retry(self: Task) -> dict[str, Any]:
        if not self.request.retries:
            raise ServiceUnavailableError("away")
        return dict(self.request.headers)

    @task(bind=True, retry=QUICK)
    def retries_with(self: Task, text: str, name: str) -> str:
        if not self.request.retries:
            raise ConnectionError("lab away")
        return text + name

    @task(retry=RetryPolicy(max_retries=0))
    def never_again() -> None:
        raise ServiceUnavailableError("away")

    @task(max_retries=1, bind=True)
    def declared_once(self: Task) -> None:
        raise ServiceUnavailableError("away")

    @task(retry=RetryPolicy(max_retries=10, delay_s=0.4, base=1, jitter=Jitter.NONE, cap_s=1, budget_s=0.9))
    def out_of_time() -> None:
        raise ServiceUnavailableError("away")

    @task(bind=True, retry=QUICK)
    def rate_limited(self: Task) -> float:
        _redis(self).rpush(f"test:times:{self.request.id}", time.time())
        if not self.request.retries:
            raise RateLimitError("slow down", reset_time=timedelta(seconds=1))
        return float(self.request.retries)

    @task
    def leaky(*args: Any, **kwargs: Any) -> None:
        try:
            raise KeyError(f"inner api_key={SECRET}")  # noqa: TRY301 - the cause to be hidden
        except KeyError as inner:
            error = ValueError(f"bad row, password={SECRET}")
            error.add_note(f"note secret={SECRET}")
            raise error from inner

    @task
    def own_error(text: str) -> None:
        raise PatientError(text)

    @task
    def unpicklable() -> None:
        raise UnpicklableError("left", "right")

    @task
    def unpicklable_result() -> Any:
        return lambda: None

    @task(
        time_limit=1,
        soft_time_limit=1,
        bind=True,
        retry=RetryPolicy(max_retries=1, delay_s=0.1, jitter=Jitter.NONE, budget_s=30),
    )
    def hang(self: Task, times: int = 99) -> int:
        if self.request.retries < times:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # deaf to the soft limit
            time.sleep(60)
        return int(self.request.retries)

    @task(time_limit=1, soft_time_limit=1, retry=RetryPolicy(max_retries=0))
    def hang_once() -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        time.sleep(60)

    @task(soft_time_limit=1, time_limit=30, bind=True, retry=QUICK)
    def overrun(self: Task) -> int:
        if self.request.retries < 1:
            time.sleep(60)
        return int(self.request.retries)

    @task(bind=True, retry=RetryPolicy(max_retries=1, delay_s=0.1, jitter=Jitter.NONE, budget_s=30))
    def killed(self: Task, times: int = 99, slow_hook_s: float = 0, note: str = "") -> int:
        if self.request.retries < times:
            os.kill(os.getpid(), signal.SIGKILL)
        return int(self.request.retries)

    @task(
        reject_on_worker_lost=True,
        retry=RetryPolicy(max_retries=1, delay_s=0.1, jitter=Jitter.NONE, budget_s=30),
    )
    def killed_and_rejected() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @task(retry=RetryPolicy(max_retries=0))
    def runs_another_in_place() -> Any:
        return app.tasks["sample.foreign"].apply(throw=True).get()

    @task(bind=True, retry=RetryPolicy(max_retries=1, delay_s=0.1, jitter=Jitter.NONE, budget_s=30))
    def exits(self: Task) -> None:
        raise SystemExit(SECRET)

    @task(bind=True)
    def generator_exit(self: Task) -> None:
        raise GeneratorExit(f"password={SECRET}")

    @task(bind=True)
    def cancelled(self: Task) -> None:
        raise asyncio.CancelledError(f"password={SECRET}")

    @task(bind=True)
    def exits_among_others(self: Task) -> None:
        raise BaseExceptionGroup(f"password={SECRET}", [ValueError(SECRET), SystemExit(SECRET)])

    @task(retry=RetryPolicy(max_retries=0))
    def out_of_memory() -> None:
        raise MemoryError(f"password={SECRET}")

    class Big:
        def __reduce__(self) -> Any:
            raise MemoryError

        def __json__(self) -> Any:
            raise MemoryError

    @task(retry=RetryPolicy(max_retries=0))
    def result_out_of_memory() -> Any:
        return Big()

    @task(bind=True)
    def manual(self: Task, times: int) -> int:
        if self.request.retries < times:
            raise self.retry(exc=ValueError(f"password={SECRET}"), countdown=0.1, max_retries=2)
        return int(self.request.retries)

    @task(bind=True)
    def manual_bare(self: Task, patient: str) -> None:
        raise self.retry(countdown=0.1, max_retries=0)

    @task(bind=True, autoretry_for=(LookupError,), retry_kwargs={"max_retries": 2, "countdown": 0.1})
    def auto(self: Task, times: int) -> int:
        if self.request.retries < times:
            raise LookupError("not yet")
        return int(self.request.retries)

    @task(bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"max_retries": 1, "countdown": 0.1})
    def auto_away(self: Task) -> None:
        raise ConnectionError(f"lab away, password={SECRET}")

    @task(bind=True)
    def manual_away(self: Task) -> None:
        raise self.retry(exc=ConnectionError(f"away, password={SECRET}"), countdown=0.1, max_retries=1)

    @task(bind=True)
    def manual_in_except(self: Task) -> int:
        try:
            return _needs_two_attempts(self)
        except ConnectionError:
            raise self.retry(countdown=0.1)  # noqa: B904 - Celery's idiom

    @task(bind=True)
    def polls(self: Task) -> int:
        if not self.request.retries:
            raise self.retry(countdown=0.1)
        return int(self.request.retries)

    @task(retry=RetryPolicy(max_retries=3, delay_s=20, base=1, cap_s=20, jitter=Jitter.NONE, budget_s=30))
    def patient() -> None:
        raise ConnectionError("lab away")

    @task
    def ignored() -> None:
        raise Ignore

    @task
    def pid() -> int:
        return os.getpid()

    @task
    def rejected() -> None:
        raise Reject("no", requeue=False)

    @task
    def big(size: int) -> str:
        return "x" * size

    @task(bind=True)
    def nap(self: Task, key: str, seconds: float = 60) -> str:
        """Sleep on the first run, until the key says to go on."""
        client = _redis(self)
        client.rpush(f"test:starts:{key}", f"{self.request.hostname} {os.getpid()}")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not _exists(client, f"test:go:{key}"):
            time.sleep(0.02)
        return "rested"

    @task(bind=True, retry=QUICK)
    def nap_then_fail_once(self: Task, flag: str, seconds: float) -> int:
        """Fail once the file `flag` exists, or after a time: Redis may be away meanwhile."""
        if self.request.retries:
            return int(self.request.retries)
        _wait_for_file(flag, seconds)
        raise ServiceUnavailableError("the lab is away")

    @task
    def nap_then_succeed(flag: str, seconds: float) -> str:
        _wait_for_file(flag, seconds)
        return "done"

    @task(bind=True)
    def replaced(self: Task, number: int) -> Any:
        return self.replace(app.signature("sample.add", args=(number, 5)))

    @task(bind=True)
    def stamps(self: Task) -> Any:
        return self.request.stamps["site"]

    @task
    def note_error(request: Any, error: Any, traceback: Any) -> None:
        logging.getLogger("errback").warning("errback of %s saw %s", request.id, type(error).__name__)

    @task
    def old_errback(task_id: str) -> str:
        return task_id

    class Celebrating(SampleTask):
        abstract = True

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            raise ValueError("nobody came")

    @app.task(name="sample.celebrates", base=Celebrating, shared=False)
    def celebrates() -> str:
        return "done"


def _needs_two_attempts(task: Task) -> int:
    if not task.request.retries:
        raise ConnectionError("lab away")
    return int(task.request.retries)


def _wait_for_file(path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with open(path + ".started", "w", encoding="utf-8"):  # noqa: PTH123
        pass
    while time.monotonic() < deadline and not os.path.exists(path):  # noqa: PTH110
        time.sleep(0.02)


def _exists(client: redis.Redis, key: str) -> bool:
    try:
        return bool(client.exists(key))
    except redis.RedisError:
        return False


def _decorator(app: Celery) -> Any:
    def task(*args: Any, **options: Any) -> Any:
        def declare(function: Any) -> Any:
            return app.task(name=f"sample.{function.__name__}", base=SampleTask, shared=False, **options)(
                function
            )

        return declare(args[0]) if args else declare

    return task

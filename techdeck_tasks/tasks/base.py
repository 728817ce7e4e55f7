"""The base class of reliable tasks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from celery import Task
from celery.exceptions import MaxRetriesExceededError, Reject, Retry

from techdeck_tasks.errors import Classification, TechDeckError, approachable, as_techdeck_error
from techdeck_tasks.events import Outcome
from techdeck_tasks.resilience.backoff import MAX_RETRIES_LIMIT, Refusal, RetryDecision, RetryPolicy, decide
from techdeck_tasks.tasks.attempt import ASK_A_PERSON, REPLACED, TOLD, Attempt, below_attempt
from techdeck_tasks.tasks.broker import OUTAGE, outages_told
from techdeck_tasks.tasks.disclosure import disclosable
from techdeck_tasks.tasks.expiry import expires_within
from techdeck_tasks.tasks.guard import BreakerOption, Shut, breaker_name
from techdeck_tasks.tasks.headers import header_of
from techdeck_tasks.tasks.letters import Letter, LetterKind
from techdeck_tasks.tasks.own_retry import SPENT, note_own_retry
from techdeck_tasks.tasks.services import TaskServices, services_of
from techdeck_tasks.tasks.visibility import refuse_long_countdowns

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature

logger = logging.getLogger(__name__)

STARTED_HEADER = "td_started_at"
"""Message header with the moment the first attempt failed, in seconds since 1970; retries carry it on."""

_RUNNING = "td_running"


class TechDeckTask(Task):  # type: ignore[misc]  # celery ships no types
    """A Celery task whose failures are classified, retried with backoff and jitter, redacted and audited.

    Declare on the task what differs from the settings::

        @app.task(base=TechDeckTask, service="lab", retry=RetryPolicy(max_retries=5, delay_s=2))
        def fetch_results(order_id): ...

    Called directly, a task is its plain function. Celery's control flow (`Retry`, `Ignore`, `Reject`) passes
    untouched, and a task may still call ``self.retry()`` itself. One exception: an `Ignore` inside a chord
    fails the task, since the chord would wait for it for ever.

    Attributes:
        service: what the task depends on, for metrics and breakers; default: the task's name.
        retry_policy: given as the option ``retry=``; default: from the settings, with Celery's own option
            ``max_retries`` where the task declares it.
        breaker: True: the breaker of the service; False: none; or a name, or a `BreakerConfig`.
        when_open: what happens while the breaker is open: ``park``, ``fallback`` or ``raise``.
        fallback: a task, the name of one, or the name of a registered fallback; stands in where the task
            fails for good, with the same arguments. A dict result of it is marked ``_fallback: True``.
        recovery: ``request_user_intervention`` lets a task that failed for good wait until a person resolves
            it, instead of failing; other names overrule the strategy that the error's code chooses.
        dead_letters: False keeps no letter of a task that failed for good.
    """

    abstract = True
    Request = "techdeck_tasks.tasks.request:TechDeckRequest"
    # A killed child is tried again by count, which ends; Celery's redelivery would go on for ever.
    reject_on_worker_lost = False

    service: ClassVar[str | None] = None
    retry_policy: ClassVar[RetryPolicy | None] = None
    breaker: ClassVar[BreakerOption] = True
    when_open: ClassVar[Shut | str] = Shut.PARK
    fallback: ClassVar[Task | str | None] = None
    recovery: ClassVar[str | None] = None
    dead_letters: ClassVar[bool] = True

    worker_pool: Any = None
    """The processes of the worker; known in its main process alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Celery turns task options into class attributes, and `retry` is a method of Task.
        declared = cls.__dict__.get("retry")
        if isinstance(declared, RetryPolicy):
            cls.retry_policy = declared
            del cls.retry

    # -- what an application may override -----------------------------------------------------------

    def error_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - for overriders
        """Return facts for the audit of an error: pipeline_id, stage, user_id, subject_id, or any other."""
        return {}

    def on_retry_scheduled(
        self,
        error: TechDeckError,
        attempt: int,
        delay_s: float,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Take note that `attempt` (from 0) failed and another follows in `delay_s` seconds."""

    def on_parked(self, delay_s: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take note that the attempt met an open breaker, and comes again in `delay_s` seconds."""

    def on_given_up(self, error: TechDeckError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take note that the task failed for good.

        Where its process was killed this runs in another one of the same worker.
        """

    # -- one attempt --------------------------------------------------------------------------------

    @property
    def services(self) -> TaskServices:
        """What the application gives its tasks."""
        return services_of(self.app)

    @property
    def service_name(self) -> str:
        """The service this task counts for."""
        return self.service or self.name

    @property
    def effective_policy(self) -> RetryPolicy:
        """The retry policy in force."""
        if self.retry_policy is not None:
            return self.retry_policy
        policy = self.services.retry_policy
        if not _declares_max_retries(type(self)):
            return policy
        # None is Celery's "for ever".
        return replace(
            policy, max_retries=MAX_RETRIES_LIMIT if self.max_retries is None else self.max_retries
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one attempt of a task that a worker (or eager mode) traces; else just the function."""
        request = self.request
        if request.called_directly or request.get(_RUNNING):
            return super().__call__(*args, **kwargs)
        setattr(request, _RUNNING, True)
        try:
            return Attempt(self, args, kwargs).run()
        except Exception as error:  # noqa: BLE001 - raised again
            # The body's frames alone: Celery copies, formats and pickles each one, which costs more than all
            # the rest of a failure.
            raise error.with_traceback(below_attempt(error.__traceback__))  # noqa: B904 - the error itself

    def full_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], request: Any) -> dict[str, Any]:
        """Return everything an error of this task is audited with."""
        context: dict[str, Any] = {
            "service": self.service_name,
            "operation": self.name,
            "task_name": self.name,
            "task_id": request.id,
            "root_id": request.root_id,
            # A task that is sent again has itself for a parent where it had none.
            "parent_id": None if request.parent_id == request.id else request.parent_id,
            "attempt": request.retries,
        }
        if self.recovery not in (None, ASK_A_PERSON):
            context["recovery_strategy"] = self.recovery
        try:
            context.update(self.error_context(args, kwargs))
        except Exception as trouble:  # noqa: BLE001 - the application's own code; it must not replace the error
            logger.warning("error_context of %s failed with %s", self.name, type(trouble).__name__)
        return context

    def decide(
        self, error: BaseException, classification: Classification, context: Mapping[str, Any], request: Any
    ) -> RetryDecision:
        """Decide whether the attempt `request` is followed by another."""
        services = self.services
        now = services.clock.now()
        decision = decide(
            self.effective_policy,
            classification,
            attempt=request.retries,
            elapsed_s=self.elapsed_s(request),
            now=now,
            rng=services.rng,
            error=error,
            context=context,
        )
        if decision.retry and request.get(SPENT):
            return RetryDecision(retry=False, delay_s=0.0, reason=Refusal.ATTEMPTS_SPENT.value)
        if decision.retry and expires_within(request, decision.delay_s, now, self.app.timezone):
            return RetryDecision(retry=False, delay_s=0.0, reason=Refusal.EXPIRES.value)
        return decision

    def successor(
        self,
        request: Any,
        delay_s: float,
        *,
        retries: int | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> Signature:
        """Return the task as it is sent again, with everything its message carried.

        Args:
            request: the attempt it follows.
            delay_s: its countdown in seconds.
            retries: the attempt it is; default: the next one.
            headers: to be added.
        """
        return self.signature_from_request(
            request,
            countdown=delay_s,
            retries=request.retries + 1 if retries is None else retries,
            headers={
                **(request.headers or {}),
                STARTED_HEADER: self._started_at(request),
                **(headers or {}),
            },
        )

    def tell_retry_scheduled(
        self,
        error: TechDeckError,
        attempt: int,
        delay_s: float,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Call the application's `on_retry_scheduled`; its failure is logged."""
        _shielded(self.on_retry_scheduled, error, attempt, delay_s, args, kwargs)

    def tell_parked(self, delay_s: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Call the application's `on_parked`; its failure is logged."""
        _shielded(self.on_parked, delay_s, args, kwargs)

    def tell_given_up(self, error: TechDeckError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the task as a dead letter and call the application's `on_given_up`; failures are logged."""
        if self.dead_letters and self.leaves_letters:
            _shielded(self.keep_letter, LetterKind.DEAD, error, self.request)
        _shielded(self.on_given_up, error, args, kwargs)

    @property
    def leaves_letters(self) -> bool:
        """Whether what becomes of the running attempt is kept where an operator finds it."""
        return not self.request.is_eager or self.services.keeps_eager_letters

    def keep_letter(self, kind: LetterKind, error: TechDeckError, request: Any) -> None:
        """Keep the task, sealed, as it was sent, to be sent again.

        Raises:
            RedisError: Redis is away.
            EncryptionError: this process holds no message keys.
        """
        services = self.services
        letter = Letter.of(
            error,
            kind=kind,
            task_name=self.name,
            task_id=request.id,
            signature=dict(self.signature_from_request(request)),
            service=self.service_name,
            attempts=request.retries + 1,
            failed_at=services.clock.now(),
            breaker=breaker_name(self.breaker, self.service_name),
        )
        (services.dead_letters if kind is LetterKind.DEAD else services.interventions).add(letter)

    def elapsed_s(self, request: Any) -> float:
        """Return the seconds since the first attempt of `request`'s task failed or parked."""
        return max(0.0, self.services.clock.now().timestamp() - self._started_at(request))

    @property
    def fallback_task(self) -> Task | None:
        """The task that `fallback` names; None where it names a function of the fallback registry."""
        named: Task | None = (
            self.app.tasks.get(self.fallback) if isinstance(self.fallback, str) else self.fallback
        )
        return named

    def _started_at(self, request: Any) -> float:
        started = header_of(request, STARTED_HEADER)
        # Headers are readable and writable for whoever reaches the broker.
        return float(started) if isinstance(started, (int, float)) else self.services.clock.now().timestamp()

    # -- Celery's own -------------------------------------------------------------------------------

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Refuse a body that would never run, and a retry policy that the broker would turn into double runs.

        Raises:
            TypeError: the body is a coroutine or a generator function: calling it runs nothing of it.
            SettingsError: a countdown may exceed the broker's visibility timeout.
        """
        super().on_bound(app)
        body = inspect.unwrap(cls.run)
        if (
            inspect.iscoroutinefunction(body)
            or inspect.isgeneratorfunction(body)
            or inspect.isasyncgenfunction(body)
        ):
            raise TypeError(
                f"task {cls.name}: a worker calls the body and never awaits or iterates what it returns, "
                "so nothing of it would run; make it a plain function, with asyncio.run() for a coroutine"
            )
        if cls.retry_policy is not None:
            refuse_long_countdowns(cls.name, cls.retry_policy, app)

    def on_failure(
        self, exc: Exception, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: Any
    ) -> None:
        """Audit what failed after the body had returned: a result or a next task not to be sent."""
        super().on_failure(exc, task_id, args, kwargs, einfo)
        request = self.request
        if request.id != task_id or request.get(TOLD):
            return
        setattr(request, TOLD, True)
        exc = cast("Exception", approachable(exc))
        context = self.full_context(args, kwargs, request)
        self.services.handler.handle(exc, context, outcome=Outcome.FAILED)
        self.tell_given_up(as_techdeck_error(exc, context), args, kwargs)

    def on_replace(self, sig: Signature) -> Any:
        """Let `sig` go on in the place of the running task, as `celery.Task.on_replace`."""
        setattr(self.request, REPLACED, True)
        return super().on_replace(sig)

    def start_strategy(self, app: Celery, consumer: Any, **kwargs: Any) -> Any:
        """Make the worker's handler of this task's messages; the settings are complete only now.

        Raises:
            SettingsError: as `on_bound`.
        """
        refuse_long_countdowns(self.name, self.effective_policy, app)
        self.worker_pool = consumer.pool
        return super().start_strategy(app, consumer, **kwargs)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task, as `celery.Task.apply_async`.

        Raises:
            BrokerUnavailableError: a `ServiceUnavailableError`: the broker or the result store is away;
                raised within seconds.
        """
        if self.app.conf.task_always_eager:
            return super().apply_async(*args, **kwargs)
        with outages_told(self.name):
            return super().apply_async(*args, **kwargs)

    def retry(  # noqa: PLR0917 - Celery's signature
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Send the task again, as `celery.Task.retry`; a broker that is away then does not lose it.

        Celery rejects the message when it cannot publish its successor, which ends the task. Here it goes
        back to the queue, and the attempt is made once more when the broker is back. The error that is given
        as `exc` or, in a worker, that is being handled is audited. Where Celery says that the retries are
        spent the policy adds none of its own.

        Raises:
            AuditUnavailableError: the error could be recorded nowhere and the fail policy is closed.
        """
        if not self.request.called_directly:
            note_own_retry(self, exc, max_retries)
            if issubclass(type(exc), Exception):
                exc = cast("Exception", disclosable(cast("Exception", exc)))
        try:
            retry: Retry = super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        except Reject as reject:
            requeue = reject.requeue or (self.acks_late and isinstance(reject.reason, OUTAGE))
            raise Reject(type(reject.reason).__name__, requeue=requeue) from None
        except MaxRetriesExceededError as exhausted:
            # Celery's text has the arguments.
            raise type(exhausted)(
                f"Can't retry {self.name}[{self.request.id}]: its {self.request.retries} retries are spent",
                task_args=exhausted.task_args,
                task_kwargs=exhausted.task_kwargs,
            ) from None
        return retry


def _declares_max_retries(cls: type) -> bool:
    own = cls.__mro__[: cls.__mro__.index(TechDeckTask)]
    return any("max_retries" in base.__dict__ for base in own)


def _shielded(hook: Callable[..., None], *args: Any) -> None:
    try:
        hook(*args)
    except Exception as trouble:  # noqa: BLE001 - the application's own code; the error is handled and goes on
        # Not its text and its traceback: they may hold data.
        logger.error("%s failed with %s", hook.__qualname__, type(trouble).__name__)  # noqa: TRY400

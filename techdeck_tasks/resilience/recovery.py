"""Making the next attempt succeed: the specification's seven strategies, and any of an application's own.

A strategy that reports success has changed something, or has found that a retry alone is right. Each returns
a mapping with ``successful``, ``message`` and ``strategy_used``, and what it did under keys of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.errors import describe_error, error_id_of
from techdeck_tasks.resilience.resources import BatchSize, RecoveryResources

if TYPE_CHECKING:
    from techdeck_tasks.settings import Settings

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "techdeck_tasks.recovery_strategies"
"""Each entry point is a strategy, registered under the entry point's name."""


class Classified(Protocol):
    """What a strategy may know of an error's classification."""

    @property
    def error_code(self) -> str:
        """Its code."""

    @property
    def recoverable(self) -> bool:
        """Whether anything can be done."""


Strategy = Callable[[BaseException, Classified, Mapping[str, Any]], Mapping[str, Any]]
"""``strategy(error, classification, context)``."""

SELECTION: Mapping[str, str] = {
    "TIMEOUT_ERROR": "retry_operation",
    "CONNECTION_ERROR": "reset_connection",
    "SERVICE_UNAVAILABLE": "switch_endpoint",
    "RATE_LIMIT_ERROR": "retry_operation",
    "PIPELINE_ERROR": "reduce_batch_size",
    "DATA_PROCESSING_ERROR": "use_alternative_method",
    "VALIDATION_ERROR": "request_user_intervention",
}
"""The specification's strategy for each error code; `clear_cache` is chosen by a context's ``cache_keys``."""


class RecoveryManager:
    """Chooses a strategy by the error's code and runs it. Never raises.

    A context's ``recovery_strategy`` (a registered name) overrules the choice; where the code has none,
    ``cache_keys`` in the context choose `clear_cache`.

    Args:
        settings: give the wait between closing a connection and making another.
        resources: what the strategies act on.
        clock: how it waits.
        discover: also registers what installed packages offer by `ENTRY_POINT_GROUP`.
    """

    def __init__(
        self,
        settings: Settings,
        resources: RecoveryResources | None = None,
        *,
        clock: Clock | None = None,
        discover: bool = False,
    ) -> None:
        self._reset_delay_s = settings.connection_reset_delay_seconds
        self._resources = resources or RecoveryResources()
        self._clock = clock or SystemClock()
        self._selection = dict(SELECTION)
        self._strategies: dict[str, Strategy] = {
            "retry_operation": self._retry_operation,
            "reset_connection": self._reset_connection,
            "clear_cache": self._clear_cache,
            "switch_endpoint": self._switch_endpoint,
            "reduce_batch_size": self._reduce_batch_size,
            "use_alternative_method": self._use_alternative_method,
            "request_user_intervention": self._request_user_intervention,
        }
        if discover:
            self._discover()

    def register(self, name: str, strategy: Strategy, *, error_codes: tuple[str, ...] = ()) -> None:
        """Add `strategy`, or replace the one of that name, and choose it for `error_codes`."""
        self._strategies[name] = strategy
        self._selection.update(dict.fromkeys(error_codes, name))

    def attempt(
        self, error: BaseException, classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """As `attempt_recovery`; None where no strategy fits."""
        result = self.attempt_recovery(error, classification, context)
        return None if result["strategy_used"] is None else result

    def attempt_recovery(
        self, error: BaseException, classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Try to recover from `error`.

        Args:
            error: what happened.
            classification: what it is.
            context: says what to act on: ``connection_info`` {``connection_id``} or ``service``,
                ``cache_keys``, ``endpoint``, ``batch_size`` (a number, or a `BatchSize` that is halved in
                place), ``alternative_method`` (a name, or a callable that takes the context),
                ``intervention_requirements``.

        Returns:
            The specification's keys ``successful``, ``message``, ``strategy_used``, and the strategy's own.
        """
        name = self._select(classification.error_code, context)
        if name is None:
            return {
                "successful": False,
                "message": "No suitable recovery strategy found",
                "strategy_used": None,
            }
        try:
            result = {**self._strategies[name](error, classification, context), "strategy_used": name}
        except Exception as failure:  # noqa: BLE001 - a strategy's failure is a result
            text = describe_error(failure)
            result = {
                "successful": False,
                "message": f"Recovery strategy failed: {text}",
                "strategy_used": name,
                "recovery_error": text,
            }
        outcome = "successful" if result.get("successful") else "failed"
        logger.info("recovery by %s: %s", name, outcome)
        return result

    def _select(self, error_code: str, context: Mapping[str, Any]) -> str | None:
        wished = context.get("recovery_strategy")
        if isinstance(wished, str) and wished in self._strategies:
            return wished
        name = self._selection.get(error_code)
        if name is None and context.get("cache_keys"):
            return "clear_cache"
        return name

    def _discover(self) -> None:
        for entry_point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                self.register(entry_point.name, entry_point.load())
            except Exception:
                logger.exception("the recovery strategy %r could not be loaded", entry_point.name)

    # -- the specification's strategies ----------------------------------------------------------------

    def _retry_operation(
        self, _error: BaseException, classification: Classified, _context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if not classification.recoverable:
            return _failed("Operation is not retryable")
        return _done("Operation can be retried", retry_recommended=True)

    def _reset_connection(
        self, _error: BaseException, _classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        info = context.get("connection_info")
        wanted = info.get("connection_id") if isinstance(info, Mapping) else None
        name = str(wanted or context.get("service") or "")
        connection = self._resources.connections.get(name)
        if connection is None:
            return _failed(f"No connection is known as {name!r}: nothing was reset")
        connection.close()
        self._clock.sleep(self._reset_delay_s)
        try:
            connection.check()
        except Exception as failure:  # noqa: BLE001 - each driver has its own
            return _failed(f"Connection reset failed: {describe_error(failure)}")
        return _done("Connection reset completed", connection_id=name, retry_recommended=True)

    def _clear_cache(
        self, _error: BaseException, _classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        keys = [str(key) for key in context.get("cache_keys") or ()]
        if self._resources.cache is None or not keys:
            return _failed("No cache or no cache_keys: nothing was cleared")
        cleared = self._resources.cache.delete(keys)
        if not cleared:
            return _failed(f"None of {len(keys)} cache entries existed: nothing was cleared")
        return _done(f"Cleared {cleared} cache entries", cleared=cleared, retry_recommended=True)

    def _switch_endpoint(
        self, _error: BaseException, _classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        service = str(context.get("service") or "")
        pool = self._resources.endpoints.get(service)
        if pool is None:
            return _failed(f"No other endpoints are known of service {service!r}")
        endpoint = context.get("endpoint")
        switched = pool.switch(endpoint if isinstance(endpoint, str) else None)
        if switched is None:
            return _failed(f"Every other endpoint of service {service!r} failed lately too")
        return _done(f"Switched the endpoint of {service}", endpoint=switched, retry_recommended=True)

    def _reduce_batch_size(
        self, _error: BaseException, _classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        size = context.get("batch_size")
        holder = size if isinstance(size, BatchSize) else None
        current = holder.value if holder else size
        if not isinstance(current, int) or isinstance(current, bool):
            return _failed("No batch_size in the context: nothing was reduced")
        if current <= 1:
            return _failed(f"The batch size is {current} and cannot be reduced")
        reduced = holder.halve() if holder else current // 2
        return _done(
            f"Reduced batch size from {current} to {reduced}", new_batch_size=reduced, retry_recommended=True
        )

    def _use_alternative_method(
        self, _error: BaseException, _classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        method = context.get("alternative_method")
        if isinstance(method, str):
            name, method = method, self._resources.alternatives.get(method)
        else:
            name = getattr(method, "__name__", type(method).__name__)
        if not callable(method):
            return _failed("No alternative method available")
        result = method(context)
        return _done(
            f"Alternative method used: {name}",
            alternative_method=name,
            result=result,
            retry_recommended=False,
        )

    def _request_user_intervention(
        self, error: BaseException, classification: Classified, context: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        store = self._resources.interventions
        if store is None:
            return _failed("A person has to mend what the message says, and send it again")
        requirements = context.get("intervention_requirements")
        details = dict(requirements) if isinstance(requirements, Mapping) else {}
        intervention_id = store.open(
            error_id=error_id_of(error), error_code=classification.error_code, requirements=details
        )
        return _done(
            "User intervention required",
            intervention_required=True,
            intervention_id=intervention_id,
            intervention_details=details,
        )


def _done(message: str, **facts: Any) -> Mapping[str, Any]:
    return {"successful": True, "message": message, **facts}


def _failed(message: str) -> Mapping[str, Any]:
    return {"successful": False, "message": message}

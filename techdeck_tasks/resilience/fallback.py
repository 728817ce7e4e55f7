"""What stands in for an operation that failed, and what nothing may stand in for."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from techdeck_tasks.errors import (
    FallbackFailedError,
    TechDeckError,
    classify,
    describe_error,
    is_control_flow,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from techdeck_tasks.settings import Settings

logger = logging.getLogger(__name__)

UNMASKABLE = frozenset(
    {
        "AUTH_ERROR",
        "AUTHZ_ERROR",
        "ENCRYPTION_ERROR",
        "HIPAA_COMPLIANCE_ERROR",
        "BIAS_DETECTION_ERROR",
    }
)
"""Codes of errors that must be seen: a fallback would hide an intruder, a breach or a finding."""


def may_stand_in(error: BaseException) -> bool:
    """Whether a fallback may answer for `error`; not for `UNMASKABLE` ones, be they the cause of ours."""
    if not isinstance(error, Exception) or is_control_flow(error):
        return False
    codes = {classify(error).error_code}
    if isinstance(error, TechDeckError):
        codes.update(str(error.details.get(name)) for name in ("last_error_code", "primary_error_code"))
    return not codes & UNMASKABLE


def mark_fallback(result: Any, error: BaseException) -> Any:
    """Return a dict result with ``_fallback: True`` and the redacted ``_primary_error``; others unchanged."""
    if not isinstance(result, dict):
        return result
    return {**result, "_fallback": True, "_primary_error": describe_error(error)}


class FallbackManager:
    """Fallbacks by operation name.

    Args:
        settings: say whether a failed bias detection may count as "no bias".
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._strategies: dict[str, Callable[[BaseException, Mapping[str, Any]], Any]] = {}

    def register_fallback(
        self,
        operation_name: str,
        fallback_strategy: Callable[[BaseException, Mapping[str, Any]], Any],
    ) -> None:
        """Let ``fallback_strategy(error, context)``, sync or async, stand in for `operation_name`.

        Replaces an earlier one.
        """
        self._strategies[operation_name] = fallback_strategy

    def has_fallback(self, operation_name: str) -> bool:
        """Whether anything is registered for `operation_name`."""
        return operation_name in self._strategies

    def execute_with_fallback(
        self,
        primary_operation: Callable[[], Any],
        operation_name: str,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `primary_operation`; where it fails and a fallback may stand in, call that.

        Args:
            primary_operation: takes nothing. What returns an awaitable is awaited: then so must this call be,
                and the fallback may be async too.
            operation_name: whose fallback.
            context: handed to the fallback.

        Returns:
            The operation's result, or the fallback's: a dict is marked, see `mark_fallback`.

        Raises:
            FallbackFailedError: both failed; it carries both, redacted.
            Exception: the operation's own, where there is no fallback or none may stand in.
        """
        if inspect.iscoroutinefunction(primary_operation):
            return self._execute_async(primary_operation, operation_name, context or {})
        try:
            result = primary_operation()
        except Exception as error:  # noqa: BLE001 - a fallback answers, or it is raised again
            return self.run_fallback(operation_name, error, context)
        if inspect.isawaitable(result):
            return self._execute_async(lambda: result, operation_name, context or {})
        return result

    def run_fallback(
        self, operation_name: str, error: Exception, context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the marked result of a sync fallback for `error`; raises as `execute_with_fallback`."""
        strategy = self._strategy_for(operation_name, error)
        try:
            result = strategy(error, context or {})
            if inspect.isawaitable(result):
                if inspect.iscoroutine(result):
                    result.close()
                raise TypeError("the fallback is async, the operation is not; make both async")  # noqa: TRY301 - reported like any failure of the fallback
        except Exception as fallback_error:  # noqa: BLE001 - both are carried
            raise _both_failed(operation_name, error, fallback_error) from None
        return self._stood_in(operation_name, error, result)

    async def _execute_async(
        self,
        primary_operation: Callable[[], Awaitable[Any]],
        operation_name: str,
        context: Mapping[str, Any],
    ) -> Any:
        try:
            return await primary_operation()
        except Exception as error:  # noqa: BLE001 - a fallback answers, or it is raised again
            failure = error
        strategy = self._strategy_for(operation_name, failure)
        try:
            result = strategy(failure, context)
            if inspect.isawaitable(result):
                result = await result
        except Exception as fallback_error:  # noqa: BLE001 - both are carried
            raise _both_failed(operation_name, failure, fallback_error) from None
        return self._stood_in(operation_name, failure, result)

    def _strategy_for(
        self, operation_name: str, error: Exception
    ) -> Callable[[BaseException, Mapping[str, Any]], Any]:
        strategy = self._strategies.get(operation_name)
        if strategy is None or not may_stand_in(error):
            raise error
        return strategy

    def _stood_in(self, operation_name: str, error: Exception, result: Any) -> Any:
        logger.warning("a fallback stood in for %s: %s", operation_name, describe_error(error))
        return mark_fallback(result, error)

    def create_default_fallbacks(self) -> None:
        """Register the specification's four: dataset_load, pipeline_execute, file_upload, bias_detection.

        Only the last departs from it: a detection that failed has not found "no bias". It says so only where
        ``bias_fallback_assumes_no_bias`` is set, and else asks for a review.
        """
        self.register_fallback("dataset_load", _dataset_load)
        self.register_fallback("pipeline_execute", _pipeline_execute)
        self.register_fallback("file_upload", _file_upload)
        assumes = self._settings.bias_fallback_assumes_no_bias
        self.register_fallback("bias_detection", _no_bias_assumed if assumes else _bias_unknown)


def _both_failed(operation_name: str, primary: Exception, fallback: Exception) -> FallbackFailedError:
    return FallbackFailedError(
        f"{operation_name} failed, and so did its fallback",
        primary_error=primary,
        fallback_error=fallback,
    )


def _dataset_load(error: BaseException, _context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": [],
        "metadata": {"fallback": True, "error": describe_error(error)},
        "warning": "Using empty dataset due to loading failure",
    }


def _pipeline_execute(error: BaseException, context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pipeline_id": context.get("pipeline_id", "unknown"),
        "status": "failed_with_fallback",
        "error": describe_error(error),
        "warning": "Pipeline execution failed, using fallback results",
    }


def _file_upload(error: BaseException, context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "upload_id": context.get("upload_id"),
        "status": "failed",
        "error": describe_error(error),
        "recommendation": "Please try uploading a smaller file or different format",
    }


def _bias_unknown(error: BaseException, _context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bias_detected": None,
        "bias_score": None,
        "status": "fallback",
        "requires_review": True,
        "warning": "Bias detection failed, a person has to look",
        "error": describe_error(error),
    }


def _no_bias_assumed(error: BaseException, _context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bias_detected": False,
        "bias_score": 0.0,
        "status": "fallback",
        "warning": "Bias detection failed, assuming no bias",
        "error": describe_error(error),
    }

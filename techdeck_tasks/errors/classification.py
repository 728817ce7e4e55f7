"""What an error is: its code, whether it may be tried again, and whom it concerns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

from techdeck_tasks.errors.anatomy import is_open, open_base
from techdeck_tasks.errors.base import RetryRule, Severity, TechDeckError, is_ours, lookup
from techdeck_tasks.errors.recognition import Recognition, installed_mappings, is_registered
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.errors.verdict import Target, Verdict

UNKNOWN = "unknown"

RETRYABLE_PATTERNS = (
    "connection",
    "timeout",
    "temporary",
    "transient",
    "unavailable",
    "busy",
    "throttle",
    "rate limit",
)
"""The specification's words for a passing trouble; case does not matter."""

_MAX_MEMBERS = 1000
_RULES = {rule.value: rule for rule in RetryRule}


@dataclass(frozen=True, slots=True)
class Classification:
    """What is known of one error.

    Attributes:
        error_type: dotted class name of the exception as raised.
        retryable: it may be tried again, before attempts, time and budgets are considered.
        retry_rule: why: by its class, by its message, or by waiting for a breaker.
        retry_at: the moment before which the other side asked not to be tried again, aware UTC.
        http_status: the status for a caller over HTTP.
        service: what was called or is at work, from the context; "unknown" where it names none.
        operation: what was being done, from the context; "unknown" where it names none.
    """

    error_code: str
    error_type: str
    severity: Severity
    recoverable: bool
    retryable: bool
    retry_rule: RetryRule
    retry_at: datetime | None
    http_status: int
    service: str
    operation: str
    hipaa_related: bool
    hipaa_notify: bool


class Classifier:
    """Classifies errors by what a `Recognition` knows of foreign types. Safe to share between threads."""

    def __init__(self, recognition: Recognition) -> None:
        self._recognition = recognition

    def classify(self, error: BaseException, context: Mapping[str, Any] | None = None) -> Classification:
        """Return what `error` is. Never raises."""
        if is_ours(error):
            return self._classify_ours(error, context)
        if _is_group(error):
            return self._classify_group(error, context)
        verdict = self._verdict(error)
        cls = lookup(verdict.code)
        rule = verdict.retry_rule or cls.retry_rule
        return Classification(
            verdict.code,
            self._recognition.kind(type(error)).dotted_name,
            cls.severity,
            cls.default_recoverable,
            _may_retry(rule, error),
            rule,
            verdict.retry_at,
            cls.http_status,
            _service(context),
            _operation(context),
            cls.hipaa_related,
            cls.hipaa_notify,
        )

    def _verdict(self, error: BaseException) -> Verdict:
        nearest = open_base(type(error))
        if issubclass(nearest, TechDeckError):
            # One of ours that cannot be asked: its class alone tells.
            return Verdict(nearest.code)
        return self._recognition.verdict(error)

    def is_control_flow(self, error: BaseException) -> bool:
        """Whether `error` steers and is to pass untouched; of a group: whether every member does."""
        if _is_group(error):
            return all(self._recognition.kind(type(member)).control_flow for member in _members(error))
        return self._recognition.kind(type(error)).control_flow

    def _classify_ours(self, error: TechDeckError, context: Mapping[str, Any] | None) -> Classification:
        cls = type(error)
        if error.error_code != cls.code and is_registered(error.error_code):
            cls = lookup(error.error_code)
        rule = _RULES.get(str(error.details.get("retry_rule")), cls.retry_rule)
        return Classification(
            error.error_code,
            str(error.details.get("original_type") or self._recognition.kind(type(error)).dotted_name),
            cls.severity,
            error.recoverable,
            _may_retry(rule, error),
            rule,
            error.retry_at,
            cls.http_status,
            _service(context, error.details.get("service_name")),
            _operation(context, error.details.get("operation")),
            cls.hipaa_related,
            cls.hipaa_notify,
        )

    def _classify_group(
        self, group: BaseExceptionGroup[BaseException], context: Mapping[str, Any] | None
    ) -> Classification:
        members = [self.classify(member, context) for member in _members(group)]
        worst = max(members, key=_badness)
        moments = [member.retry_at for member in members if member.retry_at is not None]
        return Classification(
            worst.error_code,
            self._recognition.kind(type(group)).dotted_name,
            worst.severity,
            all(member.recoverable for member in members),
            all(member.retryable for member in members),
            worst.retry_rule,
            max(moments, default=None),
            worst.http_status,
            worst.service,
            worst.operation,
            any(member.hipaa_related for member in members),
            any(member.hipaa_notify for member in members),
        )


def _is_group(error: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    kind = type(error)
    return issubclass(kind, BaseExceptionGroup) and is_open(kind)


def _may_retry(rule: RetryRule, error: BaseException) -> bool:
    if rule is not RetryRule.BY_PATTERN:
        return rule is not RetryRule.NEVER
    text = text_of(error)
    if is_ours(error):
        text = f"{text} {error.details.get('original_error') or ''}"
    text = text.lower()
    return any(pattern in text for pattern in RETRYABLE_PATTERNS)


def _badness(found: Classification) -> tuple[int, bool, bool]:
    return found.severity.rank, found.hipaa_notify, not found.retryable


def _members(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    pending: list[BaseException] = [group]
    seen = 0
    while pending and seen < _MAX_MEMBERS:
        error = pending.pop()
        if _is_group(error):
            pending.extend(error.exceptions)
        else:
            seen += 1
            yield error


def _service(context: Mapping[str, Any] | None, fallback: Any = None) -> str:
    return str((context and context.get("service")) or fallback or UNKNOWN)


def _operation(context: Mapping[str, Any] | None, fallback: Any = None) -> str:
    if context:
        for name in ("operation", "task_name", "operation_type"):
            if context.get(name):
                return str(context[name])
    return str(fallback or UNKNOWN)


_recognition = Recognition(discover=installed_mappings)
_classifier = Classifier(_recognition)


def classify(error: BaseException, context: Mapping[str, Any] | None = None) -> Classification:
    """Return what `error` is. Never raises.

    Args:
        error: any exception; of a group its worst member counts.
        context: `service`, `operation` and `task_name` are looked at.
    """
    return _classifier.classify(error, context)


def register_mapping(dotted_name: str, code_or_callable: Target) -> None:
    """Say what an exception class of an application or its libraries is.

    Args:
        dotted_name: module and qualified name of the class, such as ``lab.client.LabError``.
        code_or_callable: a registered code, a `Verdict`, or a function of the exception that returns either,
            None to pass, or the exception inside. Packages may offer whole mappings by the entry-point group
            ``techdeck_tasks.error_mappings``.

    Raises:
        ValueError: no class is registered for the code.
    """
    _recognition.register(dotted_name, code_or_callable)


def is_control_flow(error: BaseException) -> bool:
    """Whether `error` steers (Celery's Retry, Ignore, Reject; exits; cancellation) and must pass as it is."""
    return _classifier.is_control_flow(error)

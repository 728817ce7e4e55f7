"""What a mapping may say of a foreign exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from techdeck_tasks.errors.base import RetryRule


@dataclass(frozen=True, slots=True)
class Verdict:
    """The class of the taxonomy a foreign exception belongs to, and where it differs from that class.

    Attributes:
        code: a registered error code.
        retry_rule: replaces the rule of the code's class; None keeps it.
        retry_at: the moment before which the other side asked not to be tried again, aware UTC.
        reason: why an exception is deliberately INTERNAL_ERROR. The completeness test asks for it.
    """

    code: str
    retry_rule: RetryRule | None = None
    retry_at: datetime | None = None
    reason: str = ""


Target = str | Verdict | Callable[[BaseException], "str | Verdict | BaseException | None"]
"""What a dotted name maps to: a code, a verdict, or a function of the exception.

The function may return None (the search goes on along the MRO) or another exception, the one inside, which is
then classified in its place.
"""


def otherwise(
    judge: Callable[[BaseException], str | Verdict | BaseException | None], fallback: str | Verdict
) -> Target:
    """Return a target that asks `judge`, and says `fallback` where that says nothing."""

    def judged(error: BaseException) -> str | Verdict | BaseException:
        said = judge(error)
        return fallback if said is None else said

    return judged


def internal(reason: str, retry_rule: RetryRule | None = None) -> Verdict:
    """Return the verdict of an exception that is deliberately an INTERNAL_ERROR."""
    return Verdict("INTERNAL_ERROR", retry_rule=retry_rule, reason=reason)


DEFECT = internal(
    "a defect of the calling program: no class of the taxonomy says more, and retrying mends nothing"
)
"""Raised by wrong code. By the specification its message may still name a passing trouble."""

MISUSE = internal("the library was called wrongly: the same call fails again", RetryRule.NEVER)
WARNING = internal("a warning that somebody made an error by a filter")
CONFIGURATION = internal(
    "a wrong or missing configuration: it fails again until a person mends it", RetryRule.NEVER
)

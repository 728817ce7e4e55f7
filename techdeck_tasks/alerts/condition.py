"""Conditions: pure functions that say what is wrong in a `Situation`.

    @condition("too_many_dead_letters", reads=("dead_letters",))
    def too_many_dead_letters(situation: Situation) -> Iterable[Finding]:
        if situation.dead_letters > 100:
            yield Finding("too_many_dead_letters", Severity.CRITICAL, "more than 100 tasks failed for good")

Name the module in the entry point group ``techdeck_tasks.alert_conditions``, whose members are imported when
conditions are first looked up.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import entry_points

from techdeck_tasks.alerts.situation import ATTRIBUTES, Situation
from techdeck_tasks.errors import ValidationError

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "techdeck_tasks.alert_conditions"
_BUILT_IN = "techdeck_tasks.alerts.conditions"


class Severity(StrEnum):
    """How much an alert matters, in the specification's words."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong now.

    Attributes:
        alert_type: the condition's name.
        severity: how much it matters.
        message: one sentence of codes, counts and names; never of data.
        subject: which of several (a service, a breaker); None where there can be only one.
        value: the number that was judged.
        threshold: the number it was judged by.
        items: ids of what the finding is made of; one that was not there before is told of again.
    """

    alert_type: str
    severity: Severity
    message: str
    subject: str | None = None
    value: float | None = None
    threshold: float | None = None
    items: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """Return what stays the same as long as it is the same thing that is wrong."""
        return self.alert_type if self.subject is None else f"{self.alert_type}:{self.subject}"


Body = Callable[[Situation], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Condition:
    """A registered condition.

    Attributes:
        name: the type of its alerts.
        reads: what of the situation it needs; where that is unknown, its alerts stay as they are.
        body: the function.
        tells_end: whether people hear of it when an alert is over.
    """

    name: str
    reads: frozenset[str]
    body: Body
    tells_end: bool


_conditions: dict[str, Condition] = {}
_loading = threading.RLock()
_loaded = False


def condition(name: str, *, reads: Iterable[str], tells_end: bool = True) -> Callable[[Body], Body]:
    """Register the function below as the condition `name`.

    Args:
        name: the type of its alerts.
        reads: the attributes of `Situation` that it needs.
        tells_end: whether people hear of it when an alert is over.

    Raises:
        ValidationError: another function has that name, or there is no such attribute.
    """
    needed = frozenset(reads)
    if not needed <= ATTRIBUTES:
        raise ValidationError(
            f"the alert condition {name!r} reads {', '.join(sorted(needed - ATTRIBUTES))}; "
            f"a situation has {', '.join(sorted(ATTRIBUTES))}",
            field="reads",
        )

    def register(body: Body) -> Body:
        taken = _conditions.get(name)
        # A reloaded module registers the same function again; that is no clash.
        if taken is not None and _origin(taken.body) != _origin(body):
            raise ValidationError(
                f"the alert condition {name!r} is taken by {_origin(taken.body)}; choose another name",
                field="name",
            )
        _conditions[name] = Condition(name, needed, body, tells_end)
        return body

    return register


def load_conditions() -> Mapping[str, Condition]:
    """Return every condition: the built-in ones, the application's, and those of installed plug-ins."""
    global _loaded  # noqa: PLW0603 - imports happen once a process
    with _loading:
        if not _loaded:
            importlib.import_module(_BUILT_IN)
            for entry in entry_points(group=ENTRY_POINT_GROUP):
                entry.load()
            _loaded = True
        return dict(_conditions)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong, and what could not be told.

    Attributes:
        findings: by key.
        undecided: types whose condition could not be judged.
    """

    findings: Mapping[str, Finding]
    undecided: frozenset[str]


def judge(conditions: Mapping[str, Condition], situation: Situation) -> Judgement:
    """Return what `conditions` find. One that raises is logged and undecided, and stops no other."""
    findings: dict[str, Finding] = {}
    undecided: set[str] = set()
    for name, known in conditions.items():
        if known.reads & situation.unknown:
            undecided.add(name)
            continue
        try:
            found = list(known.body(situation))
        except Exception as failure:
            logger.exception("alert condition %s failed (%s)", name, type(failure).__name__)
            undecided.add(name)
            continue
        findings.update({finding.key: finding for finding in found if finding.alert_type == name})
    return Judgement(findings, frozenset(undecided))


def _origin(body: Body) -> str:
    return f"{body.__module__}.{getattr(body, '__qualname__', repr(body))}"

"""Recognising foreign exceptions, without importing the libraries they come from.

An exception is looked up along its MRO by dotted name. Names of libraries come before those of builtins: an
error of a driver that is also a ValueError is judged as the driver's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from techdeck_tasks.errors.anatomy import named_kind
from techdeck_tasks.errors.base import is_ours, lookup
from techdeck_tasks.errors.mappings import BUILTIN_MAPPINGS
from techdeck_tasks.errors.verdict import Target, Verdict, internal
from techdeck_tasks.redaction.foreign import dotted_name, is_order, mro_of, short_name

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "techdeck_tasks.error_mappings"
"""Each entry point is a mapping of dotted names to targets, or a function that returns one."""

CONTROL_FLOW = frozenset(
    {
        "builtins.SystemExit",
        "builtins.KeyboardInterrupt",
        "builtins.GeneratorExit",
        "asyncio.exceptions.CancelledError",
        "celery.exceptions.TaskPredicate",
        "celery.exceptions.Retry",
        "celery.exceptions.Ignore",
        "celery.exceptions.Reject",
    }
)
"""Dotted names of what is raised to steer and not because something failed."""

UNMAPPED = internal("no mapping speaks of it")

_MAX_DEPTH = 8
_MAX_CACHED_TYPES = 4096


@dataclass(frozen=True, slots=True)
class Kind:
    """What is true of every instance of one exception type.

    Attributes:
        dotted_name: module and qualified name of the type.
        targets: what is asked about an instance, in that order; empty where no mapping speaks of it.
        control_flow: whether an instance steers instead of failing.
    """

    dotted_name: str
    targets: tuple[Target, ...]
    control_flow: bool


class Recognition:
    """A table of mappings and what it has learned of the types met so far. Safe to share between threads.

    Args:
        mappings: dotted name to target; copied.
        discover: gives the mappings of installed packages; called once, at the first classification.
    """

    def __init__(
        self,
        mappings: Mapping[str, Target] = BUILTIN_MAPPINGS,
        discover: Callable[[], Iterable[Mapping[str, Target]]] = tuple,
    ) -> None:
        self._mappings = dict(mappings)
        self._discover: Callable[[], Iterable[Mapping[str, Target]]] | None = discover
        self._kinds: dict[type, Kind] = {}

    def register(self, dotted_name: str, target: Target) -> None:
        """Let `dotted_name` and its subclasses be what `target` says; replaces an earlier entry.

        Raises:
            ValueError: `target` names a code that no class is registered for.
        """
        code = target.code if isinstance(target, Verdict) else target
        if isinstance(code, str):
            try:
                lookup(code)
            except KeyError:
                raise ValueError(
                    f"mapping of {dotted_name}: no class is registered for the code {code!r}; "
                    "import the module that defines it first"
                ) from None
        self._mappings[dotted_name] = target
        self._kinds.clear()

    def verdict(self, error: BaseException, depth: int = 0) -> Verdict:
        """Return the first verdict along the MRO of a foreign exception."""
        for target in self.kind(type(error)).targets:
            said: Any = target
            if callable(target):
                try:
                    said = target(error)
                except BaseException as failure:
                    # An application's function, or what it asked of the error, may raise anything.
                    if is_order(failure):
                        raise
                    # Only types: the texts of both may hold data, and a redacting log filter is not certain.
                    logger.warning(
                        "the error mapping of %s failed with %s",
                        short_name(type(error)),
                        short_name(type(failure)),
                    )
                    continue
            if issubclass(type(said), BaseException):
                if said is error or depth >= _MAX_DEPTH:
                    continue
                if is_ours(said):
                    return Verdict(said.error_code, retry_at=said.retry_at)
                said = self.verdict(said, depth + 1)
            if isinstance(said, str):
                said = Verdict(said)
            if isinstance(said, Verdict) and is_registered(said.code):
                return said
        return UNMAPPED

    def kind(self, kind: type[BaseException]) -> Kind:
        """Return what is known of an exception type."""
        kind = named_kind(kind)
        try:
            return self._kinds[kind]
        except KeyError:
            pass
        if self._discover is not None:
            self._load()
        names = [dotted_name(base) for base in mro_of(kind)]
        # A stable sort keeps the MRO's order among libraries and among builtins.
        ordered = sorted(names, key=lambda name: name.startswith("builtins."))
        targets = tuple(self._mappings[name] for name in ordered if name in self._mappings)
        known = Kind(names[0], targets, any(name in CONTROL_FLOW for name in names))
        if len(self._kinds) >= _MAX_CACHED_TYPES:
            # Celery's JSON result back end makes a new type for each exception it cannot import.
            self._kinds.clear()
        self._kinds[kind] = known
        return known

    def _load(self) -> None:
        discover, self._discover = self._discover, None
        for mappings in discover() if discover is not None else ():
            for name, target in mappings.items():
                try:
                    self.register(name, target)
                except ValueError as problem:
                    logger.warning("%s", problem)


def is_registered(code: str) -> bool:
    """Whether a class is registered for `code`; a mapping that names another is logged and passed over."""
    try:
        lookup(code)
    except KeyError:
        logger.warning("no class is registered for the error code %r", code)
        return False
    return True


def installed_mappings() -> Iterator[Mapping[str, Target]]:
    """Yield what installed packages offer; one that cannot be loaded is logged and left out."""
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found = entry_point.load()
            offered = dict(found() if callable(found) else found)
        except Exception:
            logger.exception("the error mappings of entry point %r could not be loaded", entry_point.name)
            continue
        yield offered

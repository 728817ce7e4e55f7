"""What a test suite needs instead of servers: tasks and pipelines run in its process, and all services, too.

With pytest use the fixtures of `techdeck_tasks.testing.plugin`, elsewhere `TechDeckTestbed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from techdeck_tasks.testing.testbed import TechDeckTestbed

__all__ = ["TechDeckTestbed"]


def __getattr__(name: str) -> Any:
    """Import the testbed when it is first used: pytest imports this package at every start."""
    if name != "TechDeckTestbed":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from techdeck_tasks.testing.testbed import TechDeckTestbed  # noqa: PLC0415 - the point of this function

    return TechDeckTestbed

"""Data pipelines on Celery that stay reliable and accountable when things go wrong.

What an application needs is here; everything else has its place in the package::

    from techdeck_tasks import RetryPolicy, TechDeckTask, create_app, install, pipeline_execute, stage
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from techdeck_tasks.pipeline.registry import StageContext, StageResult, stage
    from techdeck_tasks.resilience.backoff import RetryPolicy
    from techdeck_tasks.runtime import create_app, install, pipeline_execute
    from techdeck_tasks.tasks.base import TechDeckTask

__all__ = [
    "RetryPolicy",
    "StageContext",
    "StageResult",
    "TechDeckTask",
    "create_app",
    "install",
    "pipeline_execute",
    "stage",
]

_HOMES = {
    "RetryPolicy": "resilience.backoff",
    "StageContext": "pipeline.registry",
    "StageResult": "pipeline.registry",
    "TechDeckTask": "tasks.base",
    "create_app": "runtime",
    "install": "runtime",
    "pipeline_execute": "runtime",
    "stage": "pipeline.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the errors alone must not cost Polars and SQLAlchemy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

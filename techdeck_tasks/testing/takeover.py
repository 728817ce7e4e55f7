"""A Celery application in the hands of a test, and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, _state
from kombu.serialization import unregister

from techdeck_tasks.pipeline import tasks as pipeline_tasks
from techdeck_tasks.pipeline.registry import load_stages
from techdeck_tasks.runtime import bind
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.messaging import SERIALIZER, register_serializer
from techdeck_tasks.tasks.services import bind_services, bound_services
from techdeck_tasks.testing.runtime import InMemoryRuntime

_EAGER = {
    "task_always_eager": True,
    # True would raise a retry to the caller instead of making it.
    "task_eager_propagates": False,
    "broker_url": "memory://localhost/",
    "result_backend": "cache+memory://",
}


class FreshApp(Celery):  # type: ignore[misc]  # celery ships no types
    """An application for tasks that a test declares; none of them outlives it."""

    task_cls = TechDeckTask

    def __init__(self) -> None:
        super().__init__("techdeck-testing", set_as_current=False, changes=dict(_EAGER))

    def task(self, *args: Any, **options: Any) -> Any:
        """Declare a task of this application alone: Celery would hand it to every later one, too."""
        options.setdefault("shared", False)
        return super().task(*args, **options)


@contextmanager
def taken_over(app: Celery, runtime: InMemoryRuntime) -> Iterator[None]:
    """Make `app` eager, current and served by `runtime` inside the block; afterwards it is as it was."""
    services, current = bound_services(app), _state._tls.current_app  # noqa: SLF001 - Celery's own test helpers do so
    changes = _changes(app)
    before, names = dict(changes), set(app.tasks)
    changes.update(_EAGER)
    cached = app._backend_cache  # noqa: SLF001 - it would go on using the real result store
    app._backend_cache = app._get_backend()  # noqa: SLF001 - as above
    cipher = register_serializer(lambda: runtime.cipher)
    bind(app, runtime)
    app.set_current()
    load_stages()
    pipeline_tasks.register(app)
    try:
        yield
    finally:
        runtime.close()
        for name in pipeline_names(app) - names:
            app.tasks.unregister(name)
        _state._set_current_app(current)  # noqa: SLF001 - as above
        if cipher is None:
            unregister(SERIALIZER)
        else:
            register_serializer(cipher)
        app._backend_cache = cached  # noqa: SLF001 - as above
        changes.clear()
        changes.update(before)
        bind_services(app, services)


def pipeline_names(app: Celery) -> set[str]:
    """Return the names of the tasks that run pipelines in `app`."""
    return {
        name
        for name in app.tasks
        if name == pipeline_tasks.EXECUTE or name.startswith(pipeline_tasks.STAGE_PREFIX)
    }


def _changes(app: Celery) -> dict[str, Any]:
    # Reading a key makes Celery load a configuration that is still pending.
    bool(app.conf.task_always_eager)
    changes: dict[str, Any] = app.conf.changes
    return changes

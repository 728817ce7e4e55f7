"""A Celery application in the hands of a test, and given back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from celery import Celery, _state
from kombu.serialization import unregister

from techdeck_tasks.keyring import Cipher
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
    with ExitStack() as undo:
        changes = _changes(app)
        undo.callback(_put_back, changes, dict(changes))
        changes.update(_EAGER)
        # Celery keeps the result store it made first, and has no public way to make another; nor to know
        # which application is current in this thread.
        undo.callback(setattr, app, "_backend_cache", app._backend_cache)  # noqa: SLF001 - as above
        app._backend_cache = app._get_backend()  # noqa: SLF001 - as above
        undo.callback(_state._set_current_app, _state._tls.current_app)  # noqa: SLF001 - as above
        app.set_current()
        undo.callback(_serve, register_serializer(lambda: runtime.cipher))
        undo.callback(bind_services, app, bound_services(app))
        bind(app, runtime)
        undo.callback(_keep_tasks, app, set(app.tasks))
        load_stages()
        pipeline_tasks.register(app)
        undo.callback(runtime.close)
        yield


def _changes(app: Celery) -> dict[str, Any]:
    # Reading a key makes Celery load a configuration that is still pending.
    bool(app.conf.task_always_eager)
    changes: dict[str, Any] = app.conf.changes
    return changes


def _put_back(changes: dict[str, Any], before: dict[str, Any]) -> None:
    changes.clear()
    changes.update(before)


def _serve(cipher: Callable[[], Cipher] | None) -> None:
    if cipher is None:
        unregister(SERIALIZER)
    else:
        register_serializer(cipher)


def _keep_tasks(app: Celery, names: set[str]) -> None:
    """Take away new tasks of pipelines; others may be of modules that the test was the first to import."""
    for name in set(app.tasks) - names:
        if name == pipeline_tasks.EXECUTE or name.startswith(pipeline_tasks.STAGE_PREFIX):
            app.tasks.unregister(name)

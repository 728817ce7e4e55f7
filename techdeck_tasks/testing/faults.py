"""Failures on demand: a stage or task raises before its body, for so many attempts."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from celery import Celery, Task

ErrorType = BaseException | type[BaseException]


class Fault:
    """One injected failure. As a context manager it ends with the block, and must have been met in it.

    Attributes:
        name: of the task, or of the stage or its kind.
        struck: how many attempts it has failed.
    """

    def __init__(self, name: str, error: ErrorType, times: int) -> None:
        self.name = name
        self.struck = 0
        self._error = error
        self._left = times

    def strike(self) -> None:
        """Raise the error, as often as it was asked for."""
        if self._left > 0:
            self._left -= 1
            self.struck += 1
            # Raised before, it would show the frames of that attempt as well.
            raise self._error.with_traceback(None) if isinstance(self._error, BaseException) else self._error

    def withdraw(self) -> None:
        """Let the attempts to come pass."""
        self._left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.withdraw()
        if error is None and not self.struck:
            raise AssertionError(
                f"the failure injected into {self.name!r} was never met: no task, stage or kind of stage of "
                "that name made an attempt; check the name"
            )


class Faults:
    """Injects failures into the tasks of one application and the stages of its pipelines."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._of_stages: list[Fault] = []
        self._replaced: list[tuple[Task, str, Any]] = []

    def inject(self, target: Task | str, error: ErrorType, times: int = 1) -> Fault:
        """Let the next `times` attempts of `target` raise `error` before their body.

        Args:
            target: a task or its name; else the name of a stage in its definition, or of a kind of stage.
            error: what is raised; of a class, each attempt raises an instance of its own.
            times: attempts, over all runs.

        Raises:
            ValueError: `times` is below 1.
        """
        if times < 1:
            raise ValueError(f"times is {times}; a failure is injected into at least one attempt")
        fault = Fault(target if isinstance(target, str) else target.name, error, times)
        task = self._app.tasks.get(fault.name)
        if task is None:
            self._of_stages.append(fault)
        else:
            self._arm(task, fault)
        return fault

    def strike_stage(self, *names: str) -> None:
        """Raise what was injected under any of `names`."""
        for fault in self._of_stages:
            if fault.name in names:
                fault.strike()

    def withdraw(self) -> None:
        """Take back every failure."""
        self._of_stages.clear()
        while self._replaced:
            task, attribute, body = self._replaced.pop()
            setattr(task, attribute, body)

    def _arm(self, task: Task, fault: Fault) -> None:
        # Where Celery retries by itself (autoretry_for), the body is behind its wrapper.
        attribute = "_orig_run" if hasattr(task, "_orig_run") else "run"
        body = getattr(task, attribute)

        def run(*args: Any, **kwargs: Any) -> Any:
            if not task.request.called_directly:
                fault.strike()
            return body(*args, **kwargs)

        self._replaced.append((task, attribute, body))
        setattr(task, attribute, run)

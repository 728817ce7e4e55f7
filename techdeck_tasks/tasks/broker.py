"""What the sender of a task is told when its message cannot be sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED
from kombu.exceptions import LimitExceeded, OperationalError

from techdeck_tasks.errors import ServiceUnavailableError

OUTAGE: tuple[type[Exception], ...] = (
    OperationalError,
    LimitExceeded,
    redis.ConnectionError,
    redis.TimeoutError,
)
"""What Celery raises when broker or result store are away: wrapped or, from the result store, bare."""


class BrokerUnavailableError(ServiceUnavailableError, OperationalError):
    """A task could not be sent: the broker or the result store is away.

    Also Celery's `OperationalError`, so that code written for `celery.Task` goes on catching it.
    """


@contextmanager
def outages_told(task_name: str) -> Iterator[None]:
    """Turn what means that the broker is away into `BrokerUnavailableError`."""
    try:
        yield
    except BrokerUnavailableError:
        raise
    except OUTAGE as error:
        raise _unavailable(task_name, error) from None
    except RuntimeError as error:
        # So Celery says that it could not subscribe to the result.
        if str(error) != E_RETRY_LIMIT_EXCEEDED:
            raise
        raise _unavailable(task_name, error) from None


def _unavailable(task_name: str, error: Exception) -> BrokerUnavailableError:
    return BrokerUnavailableError(
        f"task {task_name} not sent ({type(error).__name__}): the broker or the result store is away; "
        "check TECHDECK_BROKER_URL and TECHDECK_RESULT_BACKEND_URL, and send it again",
        service_name="broker",
    )

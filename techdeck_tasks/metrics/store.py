"""What a store of metrics does; it is on Redis, or for test suites in the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from techdeck_tasks.metrics.buckets import Bucket, Span
from techdeck_tasks.metrics.series import Series

MAX_SERIES = 1000
"""Series in one bucket, and in the totals; what comes beyond is counted under the service and operation
`other`, one series for each kind, code, severity and flags."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process counted in one minute and tells at once.

    Attributes:
        producer: the process; no two have the same.
        sequence: rises from batch to batch of a producer. One that is told again, because its answer was
            lost, is counted once.
        minute: since 1970, as the producer's clock had it.
        counts: what is added.
    """

    producer: str
    sequence: int
    minute: int
    counts: Mapping[Series, int]


class MetricsStore(Protocol):
    """Adds up what all processes count."""

    def add(self, batch: Batch) -> None:
        """Count `batch`, once. A minute in the future is taken for the present one.

        Raises:
            ServiceUnavailableError: the store does not answer; whether it has counted is unknown.
        """

    def read(self, spans: Sequence[Span]) -> list[Bucket]:
        """Return the buckets of `spans`, in order; those nobody counted in are empty.

        Raises:
            ServiceUnavailableError: the store does not answer.
        """

    def totals(self) -> Mapping[Series, int]:
        """Return what was counted since the store began; these only grow.

        Raises:
            ServiceUnavailableError: the store does not answer.
        """

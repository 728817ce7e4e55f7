"""How much runs and how much of it fails, counted by all processes together in constant space."""

from __future__ import annotations

from techdeck_tasks.metrics.collector import ErrorMetricsCollector
from techdeck_tasks.metrics.recorder import MetricsRecorder
from techdeck_tasks.metrics.redis_store import RedisMetricsStore
from techdeck_tasks.metrics.store import MetricsStore

__all__ = ["ErrorMetricsCollector", "MetricsRecorder", "MetricsStore", "RedisMetricsStore"]

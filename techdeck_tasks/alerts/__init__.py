"""What deserves a person's attention, told once, through channels that people read."""

from __future__ import annotations

from techdeck_tasks.alerts.condition import Finding, Severity, condition
from techdeck_tasks.alerts.evaluator import AlertEvaluator
from techdeck_tasks.alerts.situation import Situation
from techdeck_tasks.alerts.store import AlertStore

__all__ = ["AlertEvaluator", "AlertStore", "Finding", "Severity", "Situation", "condition"]

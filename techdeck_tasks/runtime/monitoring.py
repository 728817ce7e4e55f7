"""What is counted, and who is told: metrics, Prometheus and alerts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import cached_property

from techdeck_tasks.alerts import AlertEvaluator, AlertStore
from techdeck_tasks.alerts.channels import Channels, open_channels
from techdeck_tasks.alerts.condition import load_conditions
from techdeck_tasks.alerts.conditions import DEADLINE_NEAR, SECURITY_INCIDENT
from techdeck_tasks.alerts.record import AlertRecord
from techdeck_tasks.alerts.situation import Sources
from techdeck_tasks.alerts.state import Policy
from techdeck_tasks.audit.writing.backlog import AuditBacklog
from techdeck_tasks.celeryconfig import QUEUES
from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.metrics import ErrorMetricsCollector, MetricsRecorder, MetricsStore, RedisMetricsStore
from techdeck_tasks.metrics.prometheus import PrometheusCollector
from techdeck_tasks.runtime.auditing import Auditing
from techdeck_tasks.tasks.gauges import gauges


class Monitoring(Auditing):
    """Metrics and alerts."""

    @cached_property
    def metrics_store(self) -> MetricsStore:
        """The counters of all processes, in Redis."""
        return RedisMetricsStore(self.redis, timedelta(hours=self.settings.metrics_retention_hours))

    @cached_property
    def metrics_recorder(self) -> MetricsRecorder:
        """Counts what happens in this process."""
        return MetricsRecorder(lambda: self.metrics_store)

    @cached_property
    def metrics(self) -> ErrorMetricsCollector:
        """Error statistics, trends and alert conditions."""
        return ErrorMetricsCollector(self.metrics_store, self.metrics_recorder, self.settings, self.clock)

    @cached_property
    def prometheus(self) -> PrometheusCollector:
        """What Prometheus is told: the counters of all processes, and what waits."""
        return PrometheusCollector(
            self.metrics.totals,
            lambda: gauges(
                breakers=self.breakers,
                dead_letters=self.dead_letters,
                interventions=self.interventions,
                quarantine=self.quarantine,
                backlog=self.audit_backlog,
                app=self.app,
                queues=QUEUES,
            ),
        )

    @cached_property
    def alerts(self) -> AlertStore:
        """Alerts and silences, as operators see and change them."""
        return AlertStore(self.engine, self._alert_record, self.clock)

    @cached_property
    def alert_channels(self) -> Channels:
        """Who is told of alerts."""
        settings = self.settings
        return open_channels(
            settings.alert_channels,
            settings.alert_escalation_channels,
            settings.alert_channel_timeout_seconds,
        )

    @cached_property
    def alert_evaluator(self) -> AlertEvaluator:
        """Finds out what is wrong, and tells people."""
        settings = self.settings
        return AlertEvaluator(
            engine=self.engine,
            conditions=load_conditions(),
            sources=self._alert_sources(),
            channels=self.alert_channels,
            policy=Policy(
                fire_after=settings.alert_fire_after_evaluations,
                resolve_after=settings.alert_resolve_after_evaluations,
                repeat_after=timedelta(hours=settings.alert_repeat_hours),
                escalate_after=timedelta(minutes=settings.alert_escalate_after_minutes),
            ),
            record=self._alert_record,
            clock=self.clock,
            tenant=settings.tenant,
            on_delivered=self._note_notified,
        )

    def evaluate_alerts(self) -> None:
        """Evaluate once, unless another beat's message just did."""
        self.alert_evaluator.evaluate()

    @cached_property
    def _alert_record(self) -> AlertRecord:
        return AlertRecord(self.audit, self.settings.error_log_retention_days)

    def _alert_sources(self) -> Sources:
        return {
            "error_conditions": lambda: tuple(self.metrics.get_alert_conditions()),
            "breakers": self._breaker_states,
            "backlog": self._measured_backlog,
            "verification": self.last_verification,
            "overdue_months": lambda: tuple(self.pruner.overdue()),
            "watched_since": self.alerts.watched_since,
            "unnotified_incidents": lambda: tuple(self.incidents.unnotified()),
            "due_incidents": lambda: tuple(self.incidents.due_within(DEADLINE_NEAR)),
            "dead_letters": self.dead_letters.count,
            "interventions": self.interventions.count,
            "quarantined_messages": self.quarantine.count,
        }

    def _breaker_states(self) -> dict[str, str]:
        # Without Redis the registry tells of this process alone, where every breaker may be closed.
        self.redis.ping()
        return {name: status["state"] for name, status in self.breakers.get_status().items()}

    def _measured_backlog(self) -> AuditBacklog:
        backlog = self.audit_backlog()
        if not backlog.redis_reachable:
            raise ServiceUnavailableError("Redis does not answer", service_name="redis")
        return backlog

    def _note_notified(self, alert_type: str, items: Iterable[str], channel: str) -> None:
        if alert_type == SECURITY_INCIDENT:
            for incident_id in items:
                self.incidents.mark_notified(incident_id, channel)

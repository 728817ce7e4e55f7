"""Runs and audit entries as tables."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table
from rich.text import Text

from techdeck_tasks.audit.reader import AuditEntry
from techdeck_tasks.pipeline.view import RunView, StageView

STYLES = {
    "succeeded": "green",
    "failed": "bold red",
    "running": "cyan",
    "retrying": "yellow",
    "retry": "yellow",
    "queued": "blue",
    "skipped": "dim",
    "cancelled": "dim",
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
}


def styled(word: str | None) -> Text:
    """Return a state, outcome or severity in its colour; a dash for None."""
    return Text(word or "–", style=STYLES.get(word or "", ""))


def run_table(run: RunView) -> Table:
    """Return a run's stages, one a row."""
    title = Text.assemble(("run ", "dim"), run.run_id, ("  pipeline ", "dim"), run.name, "  ", styled(run.state))
    table = Table(title=title, title_justify="left", expand=False)
    for heading in ("stage", "kind", "state"):
        table.add_column(heading)
    for heading in ("attempts", "rows", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("error", overflow="fold")
    for stage in run.stages:
        error = f"{stage.error_code}: {stage.error_message}" if stage.error_code else ""
        table.add_row(
            stage.name,
            stage.kind,
            styled(stage.state),
            str(stage.attempt + 1) if stage.started_at else "–",
            "–" if stage.rows_done is None else f"{stage.rows_done:,}",
            _seconds(stage),
            Text(error, style="" if stage.state == "failed" else "dim"),
        )
    return table


def audit_table(entries: Iterable[AuditEntry]) -> Table:
    """Return audit entries, one a row, with the decrypted message where the reader has the key."""
    table = Table(expand=False)
    for heading in ("occurred (UTC)", "event", "code", "severity", "service", "stage"):
        table.add_column(heading)
    table.add_column("try", justify="right")
    for heading in ("outcome", "error id", "message (decrypted)"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        record = entry.record
        message = "[no key]" if entry.document is None else str(entry.document.get("message", ""))
        table.add_row(
            record.occurred_at.strftime("%m-%d %H:%M:%S"),
            record.event_type,
            record.error_code or "–",
            styled(record.severity),
            record.service,
            record.stage or "–",
            "–" if record.attempt is None else str(record.attempt + 1),
            styled(record.outcome),
            (record.error_id or "–")[:8],
            Text(message),
        )
    return table


def _seconds(stage: StageView) -> str:
    began, ended = stage.started_at, stage.finished_at
    if isinstance(began, datetime) and isinstance(ended, datetime):
        return f"{(ended - began).total_seconds():.2f}"
    return "–"

"""Runs and audit entries as tables."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from techdeck_tasks.audit.reading.entry import AuditEntry
from techdeck_tasks.pipeline.runs.view import RunView, StageView

NOTHING = "-"

STYLES = {
    "succeeded": "green",
    "failed": "bold red",
    "running": "cyan",
    "split": "cyan",
    "retrying": "yellow",
    "retry": "yellow",
    "queued": "blue",
    "skipped": "dim",
    "cancelling": "yellow",
    "cancelled": "dim",
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
}


def styled(word: str | None) -> Text:
    """Return a state, outcome or severity in its colour; a dash for None."""
    return Text(word or NOTHING, style=STYLES.get(word or "", ""))


def show_run(console: Console, run: RunView) -> None:
    """Print a run's stages, one a row, and below what went wrong in each."""
    console.print(Text.assemble(run.name, ("  run ", "dim"), run.run_id, "  ", styled(run.state)))
    table = Table()
    for heading in ("stage", "kind", "state"):
        table.add_column(heading)
    for heading in ("attempts", "rows", "seconds"):
        table.add_column(heading, justify="right")
    for stage in run.stages:
        table.add_row(
            stage.name,
            stage.kind,
            styled(stage.state).append(parts_done(stage)),
            str(stage.attempt + 1) if stage.started_at else NOTHING,
            NOTHING if stage.rows_done is None else f"{stage.rows_done:,}",
            _seconds(stage),
        )
    console.print(table)
    for stage in run.stages:
        if stage.error_code:
            end = "recovered from" if stage.state == "succeeded" else str(stage.state)
            console.print(
                Text.assemble(
                    (f"  {stage.name} ", "bold"),
                    (end, STYLES.get(stage.state, "")),
                    f" {stage.error_code}: {stage.error_message}",
                )
            )


def show_runs(console: Console, runs: Iterable[RunView]) -> None:
    """Print runs, one a row."""
    table = Table(box=None)
    for heading in ("run", "pipeline", "state", "created (UTC)", "error"):
        table.add_column(heading, no_wrap=heading in ("run", "state"), overflow="fold")
    for run in runs:
        table.add_row(
            run.run_id,
            run.name,
            styled(run.state),
            run.created_at.strftime("%Y-%m-%d %H:%M:%S"),
            run.error_code or NOTHING,
        )
    console.print(table)


def show_audit(console: Console, entries: Iterable[AuditEntry]) -> None:
    """Print audit entries: the clear columns on one line, the decrypted message below."""
    for entry in entries:
        record = entry.record
        where = f"{record.service}/{record.stage}" if record.stage else record.service
        facts = [record.occurred_at.strftime("%Y-%m-%d %H:%M:%S"), record.error_code or record.event_type]
        line = Text.assemble(
            (facts[0], "dim"), "  ", (facts[1], "bold"), "  ", styled(record.severity), f"  {where}"
        )
        if record.attempt is not None:
            line.append(f"  attempt {record.attempt + 1}")
        if record.outcome:
            line.append("  ").append_text(styled(record.outcome))
        if record.error_id:
            line.append(f"  {record.error_id[:8]}", style="dim")
        console.print(line, soft_wrap=True)
        if entry.document is not None:
            message = entry.document.get("message")
        else:
            erased = entry.erased_at and f"(erased on {entry.erased_at:%Y-%m-%d})"
            message = erased or entry.problem or "(sealed: this reader has no key)"
        if message:
            console.print(Padding(Text(str(message)), (0, 0, 0, 4)))


def parts_done(stage: StageView) -> str:
    """Return how many parts of a stage have been done, of how many; nothing where it was not split."""
    return f" {stage.parts.get('succeeded', 0)}/{sum(stage.parts.values())}" if stage.parts else ""


def _seconds(stage: StageView) -> str:
    began, ended = stage.started_at, stage.finished_at
    if isinstance(began, datetime) and isinstance(ended, datetime):
        return f"{(ended - began).total_seconds():.2f}"
    return NOTHING

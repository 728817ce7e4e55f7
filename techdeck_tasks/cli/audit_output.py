"""Where audit entries are written to, the same for every command that writes them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from techdeck_tasks.audit.reading.entry import AuditEntry
from techdeck_tasks.audit.reading.export import ExportFormat, private_file, write_entries
from techdeck_tasks.cli.console import counted, err

FormatOption = Annotated[ExportFormat, typer.Option("--format", help="How to write.")]
OutputOption = Annotated[
    Path | None, typer.Option(help="The file; it appears when complete, for its owner alone (0600).")
]


def write_out(entries: Iterable[AuditEntry], kind: ExportFormat, output: Path | None) -> None:
    """Write entries to the file `output`, or to standard output."""
    if output is None:
        write_entries(entries, kind, sys.stdout)
        return
    with private_file(output) as file:
        count = write_entries(entries, kind, file)
    err.print(f"{counted(count, 'entry', 'entries')} in {output}", markup=False, soft_wrap=True)

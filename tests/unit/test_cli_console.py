"""What of other people's text reaches an operator's terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.table import Table

from techdeck_tasks.cli.console import PlainConsole, complain, out

HOSTILE = "lab\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\u202eevil"
OBEYED = ("\x1b", "\x07", "\x9b", "\x08", "\r", "\u202e")


def test_a_terminal_obeys_nothing_that_stands_in_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("breaker")
    table.add_row(HOSTILE)
    out.print(table)
    out.print(HOSTILE, markup=False)
    complain(HOSTILE)

    printed = capsys.readouterr()

    assert not [code for code in OBEYED if code in printed.out + printed.err]
    assert printed.out.count("lab␛]0;owned") == 2
    assert "lab␛]0;owned" in printed.err


def test_colours_of_our_own_are_kept() -> None:
    terminal = PlainConsole(file=StringIO(), force_terminal=True, color_system="standard")
    with terminal.capture() as captured:
        terminal.print("[red]away[/red]\x1bc")

    assert captured.get() == "\x1b[31maway\x1b[0m␛c\n"

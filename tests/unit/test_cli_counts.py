"""How the command line names numbers."""

from __future__ import annotations

import pytest

from techdeck_tasks.cli.console import counted


@pytest.mark.parametrize(
    ("number", "nouns", "said"),
    [
        (1, ("chain",), "1 chain"),
        (0, ("chain",), "0 chains"),
        (1200, ("row",), "1,200 rows"),
        (2, ("entry", "entries"), "2 entries"),
        (1, ("entry", "entries"), "1 entry"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, nouns: tuple[str, ...], said: str) -> None:
    assert counted(number, *nouns) == said

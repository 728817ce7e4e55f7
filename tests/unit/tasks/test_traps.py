"""The table in docs/celery.md names a test for each trap."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[3]
TRAPS = range(1, 25)


def test_each_trap_has_a_test_and_each_test_that_is_named_is_there() -> None:
    page = (PROJECT / "docs" / "celery.md").read_text()
    rows = re.findall(r"^\| (\d+)((?:, \d+)*)(?:-(\d+))? \| (`tests/.*`) \|$", page, re.MULTILINE)
    covered = set()
    for first, others, last, tests in rows:
        covered |= {*range(int(first), int(last or first) + 1), *map(int, others.split(", ")[1:])}
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests):
            assert f"def {name}(" in (PROJECT / path).read_text(), name
    assert covered == set(TRAPS)

"""A page of records that operators look through, on a terminal or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from techdeck_tasks.cli.console import out, print_json


class Record(Protocol):
    """What can be listed."""

    def summary(self) -> Mapping[str, Any]:
        """Return its facts for JSON."""


R = TypeVar("R", bound=Record)


def print_page(
    name: str,
    page: tuple[Sequence[R], str | None],
    show: Callable[[R], None],
    *,
    paged: bool,
    json_output: bool,
) -> None:
    """Print a page of records and how to go on.

    Args:
        name: of the records, as JSON has them.
        page: the records, and the cursor of the next page if there is one.
        show: prints one for people.
        paged: JSON is an object of the records and `next`; otherwise a list.
        json_output: print JSON.
    """
    records, following = page
    if json_output:
        listed = [record.summary() for record in records]
        print_json({name: listed, "next": following} if paged else listed)
        return
    for record in records:
        show(record)
    if not records:
        out.print("there is none")
    if following:
        out.print(f"more: --cursor {following}", soft_wrap=True)

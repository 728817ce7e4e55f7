"""The geometry of the report's charts; the page draws it as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

WIDTH, HEIGHT = 720, 200
LEFT, BOTTOM = 48, 24
MAX_COLUMNS = 92
_GAP_SHARE = 0.2
_LABELS = 6


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the trend in the units of the drawing: all errors, and below the HIPAA-related ones."""

    x: float
    width: float
    top: float
    height: float
    hipaa_top: float
    hipaa_height: float
    title: str


@dataclass(frozen=True, slots=True)
class Trend:
    """The columns, the lines of the scale (y, text) and the dates under them (x, text)."""

    columns: tuple[Column, ...]
    lines: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]
    days_per_column: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a list; shares are of the longest bar, in percent."""

    name: str
    errors: int
    hipaa: int
    share: float
    hipaa_share: float


def trend_chart(days: Sequence[Mapping[str, Any]]) -> Trend:
    """Return the chart of a report's `trend`; long periods get several days a column."""
    per_column = ceil(len(days) / MAX_COLUMNS)
    groups = [days[start : start + per_column] for start in range(0, len(days), per_column)]
    totals = [
        (sum(day["errors"] for day in group), sum(day["hipaa_related"] for day in group)) for group in groups
    ]
    scale = _round_up(max(total for total, _ in totals))
    plot = HEIGHT - BOTTOM - 8
    step = (WIDTH - LEFT) / len(groups)

    def column(number: int) -> Column:
        total, hipaa = totals[number]
        height, hipaa_height = plot * total / scale, plot * hipaa / scale
        first, last = groups[number][0]["date"], groups[number][-1]["date"]
        when = first if first == last else f"{first} to {last}"
        return Column(
            x=round(LEFT + step * (number + _GAP_SHARE / 2), 2),
            width=round(step * (1 - _GAP_SHARE), 2),
            top=round(HEIGHT - BOTTOM - height, 2),
            height=round(height, 2),
            hipaa_top=round(HEIGHT - BOTTOM - hipaa_height, 2),
            hipaa_height=round(hipaa_height, 2),
            title=f"{when}: {total:,} errors, {hipaa:,} HIPAA-related",
        )

    every = ceil(len(groups) / _LABELS)
    return Trend(
        columns=tuple(column(number) for number in range(len(groups))),
        lines=tuple(
            (round(HEIGHT - BOTTOM - plot * share, 2), f"{scale * share:,.0f}")
            for share in ((0, 0.5, 1) if scale > 1 else (0, 1))
        ),
        labels=tuple(
            (round(LEFT + step * (number + 0.5), 2), groups[number][0]["date"])
            for number in range(0, len(groups), every)
        ),
        days_per_column=per_column,
    )


def bars(counts: Mapping[str, Mapping[str, int]], limit: int = 12) -> list[Bar]:
    """Return the longest bars of a report's figures by name."""
    longest = max((count["errors"] for count in counts.values()), default=0) or 1
    return [
        Bar(
            name,
            count["errors"],
            count["hipaa_related"],
            round(100 * count["errors"] / longest, 1),
            round(100 * count["hipaa_related"] / longest, 1),
        )
        for name, count in list(counts.items())[:limit]
    ]


def _round_up(number: int) -> int:
    """Return the end of a scale for `number`: 1, 2, 4, 6 or 8 times a power of ten."""
    if number <= 1:
        return 1
    power: int = 10 ** floor(log10(number))
    return next(factor * power for factor in (1, 2, 4, 6, 8, 10) if factor * power >= number)

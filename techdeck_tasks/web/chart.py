"""Stacked bars as plain geometry; a template draws them. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from techdeck_tasks.web.trend import Hour, error_rate

WIDTH, HEIGHT = 880, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 26
MOST_SERIES = 6
OTHER = "other codes"
_LABEL_EVERY = 4
_BAR_SHARE = 0.72


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle, in the drawing's units; `series` is its place in the legend."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A label at a place along an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn. `legend` names the series, the most frequent first, with their totals."""

    bars: tuple[Bar, ...]
    rows: tuple[Mark, ...]
    columns: tuple[Mark, ...]
    legend: tuple[tuple[str, int], ...]
    total: int


def draw(hours: Sequence[Hour]) -> Chart:
    """Return the chart of errors by hour and code."""
    totals: Counter[str] = Counter()
    for hour in hours:
        totals.update(hour.counts)
    ranked = [code for code, _ in totals.most_common()]
    named = ranked if len(ranked) <= MOST_SERIES else ranked[: MOST_SERIES - 1]
    legend = [(code, totals[code]) for code in named]
    if len(named) < len(ranked):
        legend.append((OTHER, sum(totals[code] for code in ranked[len(named) :])))
    top = _round_up(max((hour.counts.total() for hour in hours), default=0))
    width = (WIDTH - LEFT - RIGHT) / max(len(hours), 1)
    bars = [
        bar
        for place, hour in enumerate(hours)
        for bar in _column(hour, named, LEFT + place * width, width, top)
    ]
    rows = tuple(Mark(_y(value, top), f"{value:,}") for value in _steps(top))
    columns = tuple(
        Mark(LEFT + (place + 0.5) * width, f"{hour.start:%H:%M}")
        for place, hour in enumerate(hours)
        if (len(hours) - 1 - place) % _LABEL_EVERY == 0
    )
    return Chart(tuple(bars), rows, columns, tuple(legend), totals.total())


def _column(hour: Hour, named: Sequence[str], left: float, width: float, top: int) -> list[Bar]:
    stacked = [(code, hour.counts[code]) for code in named]
    stacked.append((OTHER, hour.counts.total() - sum(number for _, number in stacked)))
    bars, below = [], 0
    for series, (code, number) in enumerate(stacked):
        if number:
            y = _y(below + number, top)
            bars.append(
                Bar(
                    x=round(left + width * (1 - _BAR_SHARE) / 2, 1),
                    y=y,
                    width=round(width * _BAR_SHARE, 1),
                    height=round(_y(below, top) - y, 1),
                    series=series,
                    title=f"{hour.start:%H:%M} UTC: {number:,} {code}; "
                    f"{error_rate([hour]):.1f} % of what ran failed",
                )
            )
            below += number
    return bars


def _y(value: float, top: int) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top), 1)


def _round_up(value: int) -> int:
    """Return the next number that four equal steps divide: 4, 8, 20, 40, 60, 80, 100 ..."""
    scale = int(10 ** max(math.floor(math.log10(max(value, 1))), 0))
    return next(
        step
        for step in (4, *(factor * scale for factor in (1, 2, 4, 6, 8, 10, 20)))
        if step >= value and step % 4 == 0
    )


def _steps(top: int) -> list[int]:
    return [top * quarter // 4 for quarter in range(5)]

"""A report as one self-contained HTML file: no script, no request to anywhere, fit for print."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from techdeck_tasks.audit.compliance import charts
from techdeck_tasks.audit.compliance.store import StoredReport

SHOWN_VIOLATIONS = 200
"""So many violations the page lists; the JSON has the rest."""


def render_html(report: StoredReport) -> str:
    """Return the page of `report` with its sign-off as it is now."""
    document = report.document
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            document=document,
            trend=charts.trend_chart(document["trend"]),
            codes=charts.bars(document["errors_by_code"]),
            services=charts.bars(document["errors_by_service"]),
            chart={"width": charts.WIDTH, "height": charts.HEIGHT, "left": charts.LEFT},
            shown_violations=SHOWN_VIOLATIONS,
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("techdeck_tasks.audit.compliance", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, moment=_moment, day=_day, change=_change)
    return environment


def _number(value: int) -> str:
    return f"{value:,}"


def _moment(value: str | datetime) -> str:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _day(value: str) -> str:
    return value[:10]


def _change(percent: Any) -> str:
    return "no errors in the period before" if percent is None else f"{percent:+.1f} % on the period before"

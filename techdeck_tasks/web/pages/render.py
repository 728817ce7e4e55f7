"""Turning templates into answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from techdeck_tasks.web.auth import OVERSEES, Caller
from techdeck_tasks.web.tokens import Role

NOTICES = {
    "breaker": "Done. Every process follows within a second.",
    "cancelled": "Called off. What runs stops at its next checkpoint.",
    "resumed": "It goes on from where it ended.",
    "replayed": "Sent again. The letter is gone from this list.",
    "resolved": "Sent on. The task goes on as the one its caller waits for.",
    "unscheduled": "It is not started any more. Runs it has started go on.",
    "dropped": "Dropped. It is on record who did it and why.",
    "made": "The report is made. Read it, then sign it off.",
    "signed": "Signed off. The signature is on record and stays.",
    "incident": "Done, and on record.",
    "acknowledged": "You are in charge. Nobody is reminded of it any more.",
    "silenced": "Nobody is told of such alerts until the silence ends. They are still recorded.",
    "unsilenced": "The silence is over. What still fires is told within a minute.",
    "verified": "The log was verified; the verdict is below.",
}
"""What a page may say after an action; the address carries the key alone."""

RUN_TABS = (("/runs", "Runs"), ("/schedules", "Schedules"))
LETTER_TABS = (
    ("/dead-letters", "Dead letters"),
    ("/interventions", "Interventions"),
    ("/quarantine", "Quarantine"),
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the navigation; `tabs` are further pages that it stands for."""

    path: str
    text: str
    roles: tuple[Role, ...] = ()
    tabs: tuple[tuple[str, str], ...] = ()

    def leads_to(self, path: str) -> bool:
        places = {self.path, *(place for place, _ in self.tabs)}
        return path in places or any(path.startswith(f"{place}/") for place in places - {"/"})


_NAVIGATION = (
    _Entry("/", "Overview"),
    _Entry("/alerts", "Alerts"),
    _Entry("/runs", "Runs", tabs=RUN_TABS),
    _Entry("/breakers", "Breakers"),
    _Entry("/dead-letters", "Failed tasks", (Role.OPERATOR,), LETTER_TABS),
    _Entry("/audit", "Audit log", (Role.AUDITOR,)),
    _Entry("/reports", "Reports", (Role.AUDITOR,)),
    _Entry("/incidents", "Incidents", OVERSEES),
)

_environment = Environment(
    loader=PackageLoader("techdeck_tasks.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(
    request: Request, template: str, caller: Caller | None, *, status: int = HTTPStatus.OK, **context: Any
) -> HTMLResponse:
    """Return a page; `caller` None is for those nobody needs to log in for."""
    notice = NOTICES.get(request.query_params.get("notice", ""))
    path = request.url.path
    entries = [entry for entry in _NAVIGATION if caller is not None and caller.has(*entry.roles)]
    html = _environment.get_template(template).render(
        path=path,
        caller=caller,
        csrf=caller.session.csrf if caller and caller.session else "",
        navigation=[(entry.path, entry.text, entry.leads_to(path)) for entry in entries],
        notice=notice,
        now=datetime.now(UTC),
        roles=Role,
        **context,
    )
    return HTMLResponse(html, status_code=status)


def back_to(path: str, notice: str) -> RedirectResponse:
    """Return to a page after an action, so that loading it again does nothing."""
    return RedirectResponse(f"{path}?notice={notice}", HTTPStatus.SEE_OTHER)


def error_page(request: Request, status: int, body: Mapping[str, Any]) -> HTMLResponse:
    """Return the page of an error; it asks no server, which may be what failed."""
    return page(request, "error.html", None, status=status, status_shown=status, body=body)


def moment(value: datetime | str) -> datetime:
    """Return a moment in UTC."""
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


def ago(value: datetime | str, now: datetime) -> str:
    """Return how long ago a moment is, or until it is, in the largest unit."""
    seconds = (now - moment(value)).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= size:
            far = f"{int(abs(seconds) // size)} {unit}"
            return f"{far} ago" if seconds > 0 else f"in {far}"
    return "just now" if seconds >= 0 else "soon"


def figure(value: float) -> str:
    """Return a number with at most one decimal."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Return a duration that a person reads at a glance."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits either way
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour


_environment.globals.update(RUN_TABS=RUN_TABS, LETTER_TABS=LETTER_TABS)
_environment.filters.update(
    moment=moment,
    ago=ago,
    figure=figure,
    duration=duration,
    segment=lambda name: quote(name, safe="/"),
)

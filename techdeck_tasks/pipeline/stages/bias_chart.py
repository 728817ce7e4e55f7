"""Selection rates by group as a bar chart: one SVG that needs nothing else, without script or font."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LABEL_WIDTH, _BAR_WIDTH = 720, 220, 400
_ROW_HEIGHT, _TITLE_HEIGHT = 24, 36
_LABEL_CHARS = 30
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def bias_chart(measures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the chart of what `bias_detection` measured: a panel a column, a bar a group, a line for all."""
    parts: list[str] = []
    top = 0
    for column, measured in measures.items():
        parts.append(_panel(column, measured, top))
        top += _panel_height(measured)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" '
        f'viewBox="0 0 {_WIDTH} {top}" role="img" font-family="sans-serif" font-size="13">'
        "<title>Selection rate by group</title>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _panel_height(measured: Mapping[str, Any]) -> int:
    return _TITLE_HEIGHT + _ROW_HEIGHT * (len(measured["groups"]) + 1)


def _panel(column: str, measured: Mapping[str, Any], top: int) -> str:
    overall = measured["overall_selection_rate"]
    mean = _LABEL_WIDTH + overall * _BAR_WIDTH
    bottom = top + _TITLE_HEIGHT + _ROW_HEIGHT * len(measured["groups"])
    bars = "".join(
        _bar(group, facts, top + _TITLE_HEIGHT + _ROW_HEIGHT * index)
        for index, (group, facts) in enumerate(measured["groups"].items())
    )
    return (
        f'<text x="8" y="{top + 24}" font-weight="bold">{_text(column)}</text>{bars}'
        f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{top + _TITLE_HEIGHT}" y2="{bottom}" '
        f'stroke="#b45309" stroke-dasharray="4 3"/>'
        f'<text x="{mean:.1f}" y="{bottom + 14}" fill="#b45309" text-anchor="middle">'
        f"all {overall:.1%}</text>"
    )


def _bar(group: str, facts: Mapping[str, Any], y: int) -> str:
    rate = facts["selection_rate"]
    end = _LABEL_WIDTH + rate * _BAR_WIDTH + 6
    return (
        f'<text x="{_LABEL_WIDTH - 8}" y="{y + 16}" text-anchor="end">{_text(group)}</text>'
        f'<rect x="{_LABEL_WIDTH}" y="{y + 3}" width="{rate * _BAR_WIDTH:.1f}" height="18" fill="#2563eb"/>'
        f'<text x="{end:.1f}" y="{y + 16}">{rate:.1%} of {facts["rows"]}</text>'
    )


def _text(text: str) -> str:
    plain = _NOT_XML.sub("\ufffd", text)
    return escape(plain if len(plain) <= _LABEL_CHARS else plain[: _LABEL_CHARS - 1] + "\u2026")

"""Bounds of tables."""

from __future__ import annotations

MAX_COLUMNS = 100_000
"""Of a table: Polars takes 10 KB and more for each, however few rows there are."""

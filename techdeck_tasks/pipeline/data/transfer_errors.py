"""What file systems and servers raise, as errors that name the place and say whether to try again."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from fsspec.exceptions import FSTimeoutError

from techdeck_tasks.errors import (
    AuthenticationError,
    AuthorizationError,
    ConnectionFailedError,
    ServiceUnavailableError,
    TechDeckError,
    TimeoutError,  # noqa: A004 - the specification's name
    ValidationError,
)
from techdeck_tasks.pipeline.data.data_url import display, is_remote

READ_TIMEOUT_S = 60.0
# 11 days in seconds; a longer wish is none.
_MAX_RETRY_AFTER_DIGITS = 6

_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _GONE, _SERVER = 401, 403, 404, 429, 410, 500


@contextmanager
def transfer_errors(url: str) -> Iterator[None]:
    """Turn what file systems raise into errors that name the place and say whether to try again."""
    where = display(url)
    try:
        yield
    except TechDeckError:
        raise
    except FileNotFoundError:
        raise ValidationError(f"there is no file {where}; check the path", field="url") from None
    except (IsADirectoryError, NotADirectoryError):
        raise ValidationError(
            f"{where} is a folder, or lies in what is none; name a file", field="url"
        ) from None
    except PermissionError:
        raise AuthorizationError(f"access to {where} was refused; check the rights of this user") from None
    except (FSTimeoutError, builtins.TimeoutError):
        raise TimeoutError(
            f"{where} did not answer within {READ_TIMEOUT_S:g} s",
            operation="transfer",
            timeout_seconds=READ_TIMEOUT_S,
        ) from None
    except Exception as error:
        status = getattr(error, "status", None)
        if isinstance(status, int):
            raise _http_error(where, status, getattr(error, "headers", None)) from None
        if isinstance(error, OSError) and not is_remote(url):
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise ServiceUnavailableError(
                f"{where} cannot be read or written: {reason}", "file system"
            ) from None
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "aiohttp":
            raise ConnectionFailedError(
                f"the connection to {where} failed ({type(error).__name__})",
                service_name=urlsplit(url).hostname,
            ) from None
        raise


def _http_error(where: str, status: int, headers: Any) -> TechDeckError:
    if status == _UNAUTHORIZED:
        return AuthenticationError(f"{where} asks for credentials (HTTP 401)")
    if status == _FORBIDDEN:
        return AuthorizationError(f"{where} refuses access (HTTP 403)")
    if status in (_NOT_FOUND, _GONE):
        return ValidationError(f"there is no file {where} (HTTP {status}); check the URL", field="url")
    if status == _TOO_MANY or status >= _SERVER:
        return ServiceUnavailableError(
            f"{where} does not serve now (HTTP {status})",
            service_name=urlsplit(where).hostname,
            retry_after=_retry_after(str((headers or {}).get("Retry-After", ""))),
        )
    return ValidationError(f"{where} cannot be read (HTTP {status}); check the URL", field="url")


def _retry_after(header: str) -> timedelta | datetime | None:
    """Read RFC 9110's Retry-After: seconds, or a date; None where it is neither."""
    if header.isascii() and header.isdecimal() and len(header) <= _MAX_RETRY_AFTER_DIGITS:
        return timedelta(seconds=int(header))
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

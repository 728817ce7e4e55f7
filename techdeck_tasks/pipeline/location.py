"""Where data lies: a local path or any URL that fsspec knows; read it to a file, publish a file to it.

Publishing is all or nothing: the data goes to a temporary name beside the target and is renamed, so that a
reader sees the old file or the whole new one.
"""

from __future__ import annotations

import builtins
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.core import url_to_fs
from fsspec.exceptions import FSTimeoutError
from pydantic import AfterValidator, Field, ValidationInfo

from techdeck_tasks.errors import (
    AuthenticationError,
    AuthorizationError,
    ConnectionFailedError,
    ServiceUnavailableError,
    TechDeckError,
    TimeoutError,  # noqa: A004 - the specification's name
    ValidationError,
)

FORMATS = ("csv", "json", "jsonl", "parquet")
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_COMPRESSED_SUFFIXES = (".gz", ".zst")

PRIVATE_FOLDER = 0o700
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
# 11 days in seconds; a longer wish is none.
_MAX_RETRY_AFTER_DIGITS = 6

_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _GONE, _SERVER = 401, 403, 404, 429, 410, 500


def is_remote(url: str) -> bool:
    """Whether `url` has a scheme other than ``file://``."""
    return "://" in url and not url.startswith("file://")


def local_path(url: str) -> Path:
    """Return the path of a local `url`, absolute or relative to the current folder."""
    return Path(url.removeprefix("file://"))


def data_format(url: str) -> str | None:
    """Return the format the suffix of `url` stands for, that of compression aside; None where it is none."""
    path = Path(urlsplit(url).path if is_remote(url) else local_path(url))
    if path.suffix.lower() in _COMPRESSED_SUFFIXES:
        path = path.with_suffix("")
    return _SUFFIXES.get(path.suffix.lower())


def display(url: str) -> str:
    """Return `url` without user, password and query, fit for a message."""
    if not is_remote(url):
        return str(local_path(url))
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _resolve(url: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    if folder is None or is_remote(url):
        return url
    return str((Path(folder) / local_path(url)).resolve())


DataUrl = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_resolve)]
"""A path or URL in a definition. Relative paths start at the definition file's folder, if there is one."""


def open_location(url: str) -> tuple[Any, str]:
    """Return the file system of `url` and the path inside it.

    Raises:
        ValidationError: the scheme is unknown, or its driver is not installed.
    """
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        options["client_kwargs"] = {"timeout": _http_timeout()}
    try:
        found: tuple[Any, str] = url_to_fs(url if is_remote(url) else str(local_path(url)), **options)
    except ValueError:
        known = ", ".join(
            sorted(set(fsspec.available_protocols()) & {"file", "http", "https", "s3", "gcs", "abfs"})
        )
        raise ValidationError(
            f"the scheme of {display(url)} is unknown; use a path, {known}, or another scheme of fsspec",
            field="url",
        ) from None
    except ImportError:
        raise ValidationError(
            f"the driver for {display(url)} is not installed; fsspec's documentation names the package",
            field="url",
        ) from None
    return found


class _Limit(Callback):  # type: ignore[misc]  # fsspec has no annotations
    """Breaks a transfer off once it has moved more than `max_bytes`."""

    def __init__(self, url: str, max_bytes: int) -> None:
        super().__init__()
        self._url = url
        self._max_bytes = max_bytes

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self._max_bytes:
            raise too_large(self._url, self._max_bytes)


def too_large(url: str, max_bytes: int) -> ValidationError:
    """Return the error of a source that has more than `max_bytes`."""
    return ValidationError(
        f"{display(url)} has more than {max_bytes} bytes; split it, or raise max_bytes",
        field="max_bytes",
        validation_rule="max_bytes",
    )


def matches(url: str) -> list[str]:
    """Return the files that `url` stands for, sorted: itself, or what its pattern (``*``, ``?``) finds.

    A local file whose name has a star is that file.

    Raises:
        ValidationError: there is none.
        As `fetch`.
    """
    path = urlsplit(url).path if is_remote(url) else str(local_path(url))
    if not set(path) & set("*["):
        return [url]
    if not is_remote(url):
        if local_path(url).is_file():
            return [url]
        found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        files = [name for name in found if Path(name).is_file()]
    else:
        filesystem, pattern = open_location(url)
        with _transfer_errors(url):
            files = sorted(filesystem.unstrip_protocol(name) for name in filesystem.glob(pattern))
    if not files:
        raise ValidationError(f"no file matches {display(url)}; check the pattern", field="url")
    return files


def require_file(path: Path) -> None:
    """Check that `path` is a file.

    Raises:
        ValidationError: it is not.
    """
    if not path.is_file():
        raise ValidationError(f"there is no file {path}; check source.url", field="source.url")


def fetch(url: str, target: Path, *, max_bytes: int | None = None) -> None:
    """Stream the file at `url` to the local file `target`.

    Args:
        url: a path or URL.
        target: the file to write.
        max_bytes: the transfer is broken off beyond so many bytes.

    Raises:
        ServiceUnavailableError: the server answered 429 or 5xx; `retry_after` is what it asked for.
        ConnectionFailedError: it could not be reached, or the connection broke.
        TimeoutError: it did not answer in time.
        ValidationError: there is no such file, or it is larger than allowed.
        AuthenticationError, AuthorizationError: it refused access.
    """
    filesystem, path = open_location(url)
    callback = DEFAULT_CALLBACK if max_bytes is None else _Limit(url, max_bytes)
    with _transfer_errors(url):
        filesystem.get_file(path, str(target), callback=callback)


def publish(source: Path, url: str, *, private: bool = False) -> None:
    """Put the local file `source` at `url`, all or nothing; `source` is used up.

    Args:
        source: the finished file.
        url: the target; its folder is made where it is missing.
        private: make local folders readable for their owner only.

    Raises:
        As `fetch`.
    """
    with _transfer_errors(url):
        if is_remote(url):
            filesystem, path = open_location(url)
            temporary = f"{path}.{secrets.token_hex(8)}.tmp"
            filesystem.makedirs(filesystem._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec's own way up
            try:
                filesystem.put_file(str(source), temporary)
                filesystem.mv(temporary, path)
            except BaseException:
                if filesystem.exists(temporary):
                    filesystem.rm_file(temporary)
                raise
            source.unlink()
        else:
            target = local_path(url)
            make_folder(target.parent, private=private)
            _publish_local(source, target)


def exists(url: str) -> bool:
    """Tell whether there is a file or folder at `url`.

    Raises:
        As `fetch`, but for a missing file.
    """
    filesystem, path = open_location(url)
    with _transfer_errors(url):
        return bool(filesystem.exists(path))


def remove_folder(url: str) -> None:
    """Remove the folder at `url` with everything in it; a missing one is no error.

    Raises:
        As `fetch`, but for a missing folder.
    """
    filesystem, path = open_location(url)
    with _transfer_errors(url):
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def publish_new(source: Path, url: str) -> bool:
    """Do `publish` unless a file is at `url`; `source` stays. Return whether it was published.

    On one machine two that do it at once cannot both succeed; a remote file system has no such promise.

    Raises:
        As `fetch`.
    """
    if is_remote(url):
        if exists(url):
            return False
        copy = source.with_name(f"{source.name}.copy")
        os.link(source, copy)
        publish(copy, url)
        return True
    target = local_path(url)
    make_folder(target.parent)
    with _transfer_errors(url):
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        _flush(source, target.parent)
    return True


def staging_folder(url: str, workspace: Path, *, private: bool = False) -> Path:
    """Return where to write what `publish` will put at `url`: beside it, so that a rename is enough."""
    if is_remote(url):
        return workspace
    folder = local_path(url).parent
    make_folder(folder, private=private)
    return folder


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Make `folder` and its parents where missing; `private` folders are the owner's only.

    Raises:
        ValidationError: the path is not a folder, or may not be written.
    """
    try:
        if private:
            for missing in reversed([folder, *folder.parents]):
                if not missing.exists():
                    missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValidationError(
            f"the folder {folder} cannot be made ({type(error).__name__}); choose another", field="url"
        ) from None


def _publish_local(source: Path, target: Path) -> None:
    _flush(source)
    source.replace(target)
    # The rename itself survives a power cut only once its folder is on the disk.
    _flush(target.parent)


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _http_timeout() -> Any:
    import aiohttp  # noqa: PLC0415 - slow to import, and only http(s) needs it

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)


@contextmanager
def _transfer_errors(url: str) -> Iterator[None]:
    """Turn what file systems raise into errors that name the place and say whether to try again."""
    where = display(url)
    try:
        yield
    except TechDeckError:
        raise
    except FileNotFoundError:
        raise ValidationError(f"there is no file {where}; check the path", field="url") from None
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

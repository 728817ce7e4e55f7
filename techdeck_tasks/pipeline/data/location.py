"""Where data lies: a local path or any URL that fsspec knows; read it to a file, publish a file to it.

Publishing is all or nothing: the data goes to a temporary name beside the target and is renamed, so that a
reader sees the old file or the whole new one.
"""

from __future__ import annotations

import glob
import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.core import url_to_fs

from techdeck_tasks.errors import TechDeckError, ValidationError
from techdeck_tasks.pipeline.data.boundary import Boundary
from techdeck_tasks.pipeline.data.data_url import display, is_remote, local_path
from techdeck_tasks.pipeline.data.folders import flush, make_folder, publish_local
from techdeck_tasks.pipeline.data.redirects import Redirects
from techdeck_tasks.pipeline.data.transfer_errors import READ_TIMEOUT_S, transfer_errors

CONNECT_TIMEOUT_S = 10.0


def open_location(url: str, redirects: Redirects | None = None) -> tuple[Any, str]:
    """Return the file system of `url` and the path inside it.

    Args:
        url: a path or URL, or a chain of them.
        redirects: says where HTTP servers may lead; None: anywhere.

    Raises:
        ValidationError: the scheme is unknown, or its driver is not installed.
    """
    options: dict[str, Any] = {}
    used = {part.partition("://")[0].lower() for part in url.split("::")} & {"http", "https"}
    if used:
        session: dict[str, Any] = {"timeout": _http_timeout()}
        if redirects is not None:
            session["trace_configs"] = [redirects.traced()]
        # From its cache fsspec would give a session that asks what someone else may read.
        options = {"client_kwargs": session, "skip_instance_cache": True}
        if "::" in url:
            options = {"skip_instance_cache": True, **dict.fromkeys(used, options)}
    try:
        with transfer_errors(url):  # some file systems connect, or open an archive, when they are made
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
    except TechDeckError:
        raise
    except Exception as error:  # noqa: BLE001 - what a file system raises for nonsense is its own affair
        raise ValidationError(
            f"{display(url)} cannot be opened ({type(error).__name__}); check the URL and what it leads to",
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


def matches(url: str, boundary: Boundary | None = None) -> list[str]:
    """Return the files that `url` stands for, sorted: itself, or what its pattern (``*``, ``?``) finds.

    A local file whose name has a star is that file. One that several links lead to is found once.

    Args:
        url: a path, URL or pattern.
        boundary: where redirects on the way may lead; the files found are not checked. None: anywhere.

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
        # By what links lead to: `**` goes round a loop of folders forty times.
        places: dict[Path, str] = {}
        for name in found:
            if Path(name).is_file():
                places.setdefault(Path(name).resolve(), name)
        files = list(places.values())
    else:
        redirects = Redirects(boundary or Boundary())
        with transfer_errors(url), redirects.told():
            filesystem, pattern = open_location(url, redirects)
            files = sorted(filesystem.unstrip_protocol(name) for name in filesystem.glob(pattern))
    if not files:
        raise ValidationError(f"no file matches {display(url)}; check the pattern", field="url")
    return files


def require_file(path: Path) -> None:
    """Check that `path` is a file.

    Raises:
        ValidationError: it is not.
    """
    if path.is_dir():
        raise ValidationError(
            f"{path} is a folder; name a file in it, or a pattern as {path}/*.csv", field="source.url"
        )
    if not path.is_file():
        raise ValidationError(f"there is no file {path}; check source.url", field="source.url")


Version = tuple[int, int, int]
"""Size, time of the last change in nanoseconds, and inode of a local file."""


def version(path: Path) -> Version:
    """Return what tells a file from what it was before it was written to or replaced."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def require_version(path: Path, known: Version, url: str) -> None:
    """Check that a file of the source `url` is still the one that was known.

    Raises:
        ValidationError: it is not, or is gone.
    """
    require_file(path)
    if version(path) != known:
        raise ValidationError(
            f"{display(url)} was changed while it was read; run it again", field="source.url"
        )


def fetch(url: str, target: Path, *, max_bytes: int | None = None, boundary: Boundary | None = None) -> None:
    """Stream the file at `url` to the local file `target`.

    Args:
        url: a path or URL.
        target: the file to write.
        max_bytes: the transfer is broken off beyond so many bytes.
        boundary: where a server may redirect to; None: anywhere.

    Raises:
        ServiceUnavailableError: the server answered 429 or 5xx; `retry_after` is what it asked for.
        ConnectionFailedError: it could not be reached, or the connection broke.
        TimeoutError: it did not answer in time.
        ValidationError: there is no such file, or it is larger than allowed.
        AuthenticationError, AuthorizationError: it refused access, or redirects to where no data may be.
    """
    redirects = Redirects(boundary or Boundary())
    callback = DEFAULT_CALLBACK if max_bytes is None else _Limit(url, max_bytes)
    with transfer_errors(url), redirects.told():
        filesystem, path = open_location(url, redirects)
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
    with transfer_errors(url):
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
            publish_local(source, target)


def exists(url: str, boundary: Boundary | None = None) -> bool:
    """Tell whether there is a file or folder at `url`.

    Args:
        url: a path or URL.
        boundary: where a server may redirect to; None: anywhere.

    Raises:
        As `fetch`, but for a missing file.
    """
    redirects = Redirects(boundary or Boundary(), "destination")
    with transfer_errors(url), redirects.told():
        filesystem, path = open_location(url, redirects)
        return bool(filesystem.exists(path))


def files_in(url: str) -> dict[str, datetime]:
    """Return the names of what is in the folder at `url`, and when each was written; a missing one is empty.

    Raises:
        As `fetch`, but for a missing folder.
    """
    filesystem, path = open_location(url)
    with transfer_errors(url):
        if not filesystem.exists(path):
            return {}
        return {
            name.rpartition("/")[2]: filesystem.modified(name) for name in filesystem.ls(path, detail=False)
        }


def remove_folder(url: str) -> None:
    """Remove the folder at `url` with everything in it; a missing one is no error.

    Raises:
        As `fetch`, but for a missing folder.
    """
    filesystem, path = open_location(url)
    with transfer_errors(url):
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def require_replaceable(url: str) -> None:
    """Check that a file may be put at `url`, as far as can be told now.

    Raises:
        ValidationError: what is there is a folder, or a device, pipe or socket, which a rename would remove.
    """
    if is_remote(url):
        return
    path = local_path(url)
    with transfer_errors(url):
        if os.path.lexists(path) and not (path.is_symlink() or path.is_file()):
            raise ValidationError(
                f"{display(url)} is a folder or device, and no file; choose another destination",
                field="params.destination",
            )


def publish_new(source: Path, url: str, boundary: Boundary | None = None) -> bool:
    """Do `publish` unless a file is at `url`; `source` stays. Return whether it was published.

    On one machine two that do it at once cannot both succeed; a remote file system has no such promise.

    Args:
        source: the finished file.
        url: the target.
        boundary: where a server may redirect who looks whether a file is there; None: anywhere.

    Raises:
        As `fetch`.
    """
    if is_remote(url):
        if exists(url, boundary):
            return False
        copy = source.with_name(f"{source.name}.copy")
        os.link(source, copy)
        publish(copy, url)
        return True
    target = local_path(url)
    make_folder(target.parent)
    with transfer_errors(url):
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        flush(source, target.parent)
    return True


def staging_folder(url: str, workspace: Path, *, private: bool = False) -> Path:
    """Return where to write what `publish` will put at `url`: beside it, so that a rename is enough."""
    if is_remote(url):
        return workspace
    folder = local_path(url).parent
    make_folder(folder, private=private)
    return folder


def _http_timeout() -> Any:
    import aiohttp  # noqa: PLC0415 - slow to import, and only http(s) needs it

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)

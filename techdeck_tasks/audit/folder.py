"""A folder outside the database, wherever fsspec reaches. Errors of the file system pass through."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from techdeck_tasks.errors import ValidationError


class Folder:
    """Files in a folder; each is there as a whole or not at all, and on the disk of a local folder.

    Args:
        url: of the folder; made at the first write. A local one belongs to its owner alone (mode 0700).
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        try:
            fs, root = fsspec.core.url_to_fs(self._url)
        except (ValueError, ImportError) as error:
            # Its text may quote the URL, which may hold a password.
            kind = self._url.partition("://")[0] if "://" in self._url else "no URL"
            raise ValidationError(
                f"a folder of the audit log cannot be reached by {kind!r} ({type(error).__name__}); "
                "install its fsspec driver, or correct the URL",
                field="url",
            ) from None
        return fs, root.rstrip("/")

    def paths(self, below: str) -> list[str]:
        """Return the paths of all files below a folder of it; none where that is missing."""
        fs, root = self._place
        # What another process wrote or removed must show.
        fs.invalidate_cache()
        try:
            return list(fs.find(f"{root}/{below}"))
        except FileNotFoundError:
            return []

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        fs, root = self._place
        fs.invalidate_cache()
        return bool(fs.exists(f"{root}/{name}"))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        fs, root = self._place
        file: IO[bytes] = fs.open(f"{root}/{name}", "rb")
        return file

    def write(self, name: str, content: IO[bytes]) -> None:
        """Write a file; one of that name is replaced."""
        fs, root = self._place
        path = f"{root}/{name}"
        if isinstance(fs, LocalFileSystem):
            _write_durably(Path(path), content)
            return
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with fs.open(path, "wb") as file:
            shutil.copyfileobj(content, file)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        fs, root = self._place
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")


def _write_durably(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

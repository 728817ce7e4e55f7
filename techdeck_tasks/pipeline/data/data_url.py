"""Paths and URLs of data: local or remote, their format by the suffix, and how they are shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

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


def is_compressed(url: str) -> bool:
    """Whether the suffix of `url` is one of compression."""
    return (urlsplit(url).path if is_remote(url) else url).lower().endswith(_COMPRESSED_SUFFIXES)


def display(url: str) -> str:
    """Return `url`, which may be several in fsspec's chain, without users, passwords and queries."""
    if "::" in url:
        return "::".join(display(part) for part in url.split("::"))
    if not is_remote(url):
        return str(local_path(url))
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _resolve(url: str, info: ValidationInfo) -> str:
    if any(char < " " or char == "\x7f" for char in url):
        raise ValueError("a path or URL has no control characters")
    if url.startswith(("~/", "file://~")):
        raise ValueError("a path is taken as it is, and ~ is no home folder: write it out")
    try:
        for part in url.split("::"):
            _ = urlsplit(part).port  # a port is parsed when it is asked for
    except ValueError:
        raise ValueError("this is no URL: its host or port is malformed") from None
    folder = (info.context or {}).get("folder")
    if folder is None or is_remote(url):
        return url
    return os.path.realpath(Path(folder) / local_path(url))


DataUrl = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_resolve)]
"""A path or URL in a definition. Relative paths start at the definition file's folder, if there is one."""

"""A local file that several tasks read, each a range of it."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from techdeck_tasks.pipeline.data.compression import is_packed
from techdeck_tasks.pipeline.sources.encoding import is_unmarked_text
from techdeck_tasks.pipeline.sources.params import DatasetLoadParams


class Misfit(Exception):  # noqa: N818 - a finding, not an error
    """A range is not as the beginning of its file lets expect: the file is to be read whole."""


class CutFile(Protocol):
    """One file of the source; what it is like is told by its beginning.

    Where it is no such file, any method may raise a ValidationError, DataProcessingError or
    UnicodeDecodeError.

    Attributes:
        found: what there is to be reported of the ranges read.
    """

    found: dict[str, Any]

    def weight(self) -> int:
        """Return about how many bytes its rows take while they are read."""

    def ends(self, part_bytes: int) -> list[int]:
        """Return where ranges of about that weight may end, in order; the last is the file's own end.

        The first begins at 0. In bytes or rows, as it suits the format. Nothing: it cannot be cut.
        """

    def columns(self) -> pl.Schema:
        """Return the names and types that all of its ranges have."""

    def rows(self, begin: int, end: int) -> pl.DataFrame:
        """Return the rows of a range.

        Raises:
            Misfit: the whole file might have other types or rows.
        """


class CutText:
    """What `CutFile`s of text have in common."""

    def __init__(self, path: Path, params: DatasetLoadParams) -> None:
        self._path = path
        self._params = params
        self.found: dict[str, Any] = {}

    def weight(self) -> int:
        """Return its size."""
        return self._path.stat().st_size


def is_plain_text(path: Path, params: DatasetLoadParams) -> bool:
    """Whether the beginning of a file is what UTF-8 without a mark may look like; ranges look at the rest."""
    if params.encoding != "auto" and codecs.lookup(params.encoding).name != "utf-8":
        return False
    return not is_packed(path) and is_unmarked_text(path)


def read_range(path: Path, begin: int, end: int) -> bytes:
    """Return a range of a file's bytes."""
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)

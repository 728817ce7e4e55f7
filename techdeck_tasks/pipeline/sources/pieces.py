"""A source of local files cut into pieces, so that several tasks read it.

A piece is one range of a file, or several where files are small. What its part finds is what reading the
source whole would: where that is in doubt it says so, and one task reads all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from techdeck_tasks.errors import DataProcessingError, ValidationError
from techdeck_tasks.pipeline.data import data_url, location
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.registry import Piece, StageContext, StageResult, summed
from techdeck_tasks.pipeline.sources.csv_pieces import CsvFile
from techdeck_tasks.pipeline.sources.cut_file import CutFile, Misfit
from techdeck_tasks.pipeline.sources.doubles import rounded_integers
from techdeck_tasks.pipeline.sources.jsonl_pieces import JsonlFile
from techdeck_tasks.pipeline.sources.params import DatasetLoadParams
from techdeck_tasks.pipeline.sources.parquet_pieces import ParquetFile
from techdeck_tasks.pipeline.sources.same_columns import mixed_columns, union

MISFITS = "misfits"
"""In a part's report: 1 where the source is to be read whole."""
_MOST_PIECES = 500
_RANGES, _LIKE = "ranges", "like"
_FORMS: dict[str, Callable[[Path, DatasetLoadParams], CutFile]] = {
    "csv": CsvFile,
    "jsonl": JsonlFile,
    "parquet": ParquetFile,
}
_REFUSED = (ValidationError, DataProcessingError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class _Range:
    """A range of file number `file` (from 0, by name), which was of such a size and time when it was cut."""

    file: int
    begin: int
    end: int
    size: int
    modified_ns: int


def pieces(context: StageContext, params: DatasetLoadParams) -> Sequence[Piece]:
    """Return the pieces of a source; none where it is to be read whole, also to be refused."""
    form = _FORMS.get(str(context.source.effective_format))
    if form is None or data_url.is_remote(context.source.url):
        return []
    paths = _paths(context)
    facts = [path.stat() for path in paths if path.is_file()]
    sizes = [fact.st_size for fact in facts]
    if len(facts) < len(paths) or not all(sizes) or sum(sizes) > params.max_bytes:
        return []
    try:
        return _cut([form(path, params) for path in paths], facts, params.part_bytes, context.source.url)
    except _REFUSED:
        return []


def _cut(
    files: Sequence[CutFile], facts: Sequence[os.stat_result], part_bytes: int, url: str
) -> Sequence[Piece]:
    weights = [file.weight() for file in files]
    if sum(weights) <= 2 * part_bytes:
        return []
    # An even number: a last piece alone would let every other worker wait for it.
    number = min(round(sum(weights) / (2 * part_bytes)) * 2, _MOST_PIECES)
    step = -(-sum(weights) // number)
    gathered = _Gathered(step)
    for place, (file, weight, fact) in enumerate(zip(files, weights, facts, strict=True)):
        ends = file.ends(step)
        if not ends:
            return []
        for begin, end in pairwise([0, *ends]):
            one = _Range(place, begin, end, fact.st_size, fact.st_mtime_ns)
            gathered.add(one, weight * (end - begin) // max(1, ends[-1]))
    like = _alike(files, url)
    if mixed_columns([files[number].columns() for number in like]):
        return []
    return [{_RANGES: [asdict(one) for one in ranges], _LIKE: like} for ranges in gathered.pieces]


def loaded_part(context: StageContext, params: DatasetLoadParams) -> StageResult:
    """Read one piece.

    Raises:
        ValidationError: a file was changed since it was cut, or is gone.
    """
    assert context.piece is not None, "a part has a piece"
    form = str(context.source.effective_format)
    paths = _paths(context)
    frames: list[pl.DataFrame] = []
    reports: list[dict[str, Any]] = []
    for one in [_Range(**values) for values in context.piece[_RANGES]]:
        context.check_cancelled()
        with _unchanged(context, paths, one):
            file = _known(form, paths[one.file], params)
            try:
                frames.append(file.rows(one.begin, one.end))
            except (Misfit, *_REFUSED):
                return StageResult(None, {MISFITS: 1})
        first = one.begin == 0
        reports.append({"files": int(first), "source_bytes": one.size if first else 0, **file.found})
    like = [_known(form, paths[number], params) for number in context.piece[_LIKE]]
    try:
        rows = _as_one(frames, like, context.source.url)
    except _REFUSED:
        return StageResult(None, {MISFITS: 1})
    reports += [{"numbers_rounded": rounded_integers(frame.lazy(), rows.schema)} for frame in frames]
    return StageResult(rows, {MISFITS: 0, "format": form, "rows": rows.height, **summed(reports)})


def _known(form: str, path: Path, params: DatasetLoadParams) -> CutFile:
    """Return a file, and what this thread may know of its beginning from another piece of it."""
    facts = path.stat()
    version = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
    return _opened(form, path, params.model_dump_json(), version, threading.get_ident())


@lru_cache(8)
def _opened(form: str, path: Path, params: str, _version: tuple[int, ...], _thread: int) -> CutFile:
    return _FORMS[form](path, DatasetLoadParams.model_validate_json(params))


def _paths(context: StageContext) -> list[Path]:
    return [data_url.local_path(url) for url in context.source_files()]


def _alike(files: Sequence[CutFile], url: str) -> list[int]:
    """Return the numbers of files that have the columns of all, in names, order and types.

    A part looks at these alone to know what the columns of all together are. Where there is one, each file
    has its columns.

    Raises:
        ValidationError, DataProcessingError: they do not go together.
    """
    if len(files) == 1:
        return [0]
    known: dict[tuple[tuple[str, pl.DataType], ...], int] = {}
    for number, file in enumerate(files):
        known.setdefault(tuple(file.columns().items()), number)
    numbers = list(known.values())
    if len(numbers) > 1:
        _as_one([], [files[number] for number in numbers], url)
    return numbers


def _as_one(frames: Sequence[pl.DataFrame], like: Sequence[CutFile], url: str) -> pl.DataFrame:
    """Return the rows of all frames with the columns that all files together have."""
    if len(frames) == len(like) == 1:
        return frames[0]
    columns = [pl.LazyFrame(schema=file.columns()) for file in like] if len(like) > 1 else []
    with frame_errors("joining the files of the source"):
        return union([*columns, *(frame.lazy() for frame in frames)], url).collect(engine="streaming")


class _Gathered:
    """Gathers ranges to pieces of about such a weight."""

    def __init__(self, part_bytes: int) -> None:
        self.pieces: list[list[_Range]] = []
        self._most = part_bytes + part_bytes // 2
        self._weight = 0

    def add(self, one: _Range, weight: int) -> None:
        if not self.pieces or self._weight + weight > self._most:
            self.pieces.append([])
            self._weight = 0
        self.pieces[-1].append(one)
        self._weight += weight


@contextmanager
def _unchanged(context: StageContext, paths: Sequence[Path], one: _Range) -> Iterator[None]:
    """Let the block read a range of a file that is, before and after, the one that was cut."""
    try:
        _require_same(context, paths, one)
        yield
    finally:
        _require_same(context, paths, one)


def _require_same(context: StageContext, paths: Sequence[Path], one: _Range) -> None:
    if one.file < len(paths):
        location.require_file(paths[one.file])
        facts = paths[one.file].stat()
        if (facts.st_size, facts.st_mtime_ns) == (one.size, one.modified_ns):
            return
    raise ValidationError(
        f"{data_url.display(context.source.url)} was changed while it was read; run it again",
        field="source.url",
    )

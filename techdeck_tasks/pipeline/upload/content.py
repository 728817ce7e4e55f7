"""What a file is by its content, whatever its name says."""

from __future__ import annotations

import tempfile
from pathlib import Path

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data.compression import unpacked
from techdeck_tasks.pipeline.sources.encoding import as_utf8, detect_encoding

_PARQUET = b"PAR1"
_SNIFFED_CHARS = 4096
# Text that something would run or render: scripts, markup, PDF, RTF.
_ACTIVE_STARTS = ("#!", "<!", "<?", "<html", "<script", "<svg", "%pdf", "%!ps", "{\\rtf")
# Of records; single numbers or words make no table worth an upload.
_JSON_STARTS = ("{", "[", '"')


def content_problem(path: Path, form: str, max_bytes: int) -> str | None:
    """Return why `path` is no file of the format `form`, None where it is one as far as its beginning shows.

    Args:
        path: the whole file.
        form: csv, json, jsonl or parquet.
        max_bytes: the most that it may unpack to.
    """
    with tempfile.TemporaryDirectory(prefix="techdeck-") as folder:
        try:
            plain = unpacked(path, Path(folder) / "unpacked", "the upload", max_bytes)
            with plain.open("rb") as file:
                is_parquet = file.read(len(_PARQUET)) == _PARQUET
            if is_parquet or form == "parquet":
                return None if is_parquet and form == "parquet" else "its content is of another format"
            text = as_utf8(plain, detect_encoding(plain), Path(folder) / "utf8")
        except ValidationError as error:
            return error.message
        with text.open(encoding="utf-8") as file:
            start = file.read(_SNIFFED_CHARS).lstrip().lower()
    if "\x00" in start:
        return "it is binary"
    if start.startswith(_ACTIVE_STARTS):
        return "it is a program, a script or a document"
    if form != "csv" and not start.startswith(_JSON_STARTS):
        return "it is no JSON of records"
    return None

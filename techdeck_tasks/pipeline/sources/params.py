"""The parameters of `dataset_load`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from techdeck_tasks.pipeline.sources.csv_scan import CsvParams
from techdeck_tasks.pipeline.sources.encoding import known_encoding

INFERENCE_ROWS = 10_000
"""So many rows of CSV tell the types of its columns, where none further down does not fit."""
_DEFAULT_MAX_BYTES = 1 << 33
_DEFAULT_PART_BYTES = 1 << 25


class DatasetLoadParams(CsvParams):
    """Parameters of `dataset_load`; those of `CsvParams` are for CSV alone.

    Attributes:
        encoding: CSV, JSON, JSONL: a codec of Python, or ``auto``.
        max_bytes: the most that the source may have, all files together, unpacked.
        part_bytes: local files, CSV or JSON Lines in UTF-8 or Parquet, of more than twice this together are
            read in parts of about so many bytes (of Parquet, in memory), an even number of them, by several
            workers where there are. Any other source is read by one task, and handed on in parts of about so
            many bytes in memory.
    """

    encoding: Literal["auto"] | Annotated[str, AfterValidator(known_encoding)] = "auto"
    max_bytes: int = Field(_DEFAULT_MAX_BYTES, ge=1)
    part_bytes: int = Field(_DEFAULT_PART_BYTES, ge=1, le=1 << 30)

"""CSV as Polars reads it: the dialect found, types inferred, a whole file or a piece of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import polars as pl
from pydantic import AfterValidator, Field

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data.dtypes import DtypeName, dtype_of, with_dtypes
from techdeck_tasks.pipeline.registry import StageParams
from techdeck_tasks.pipeline.sources.dialect import detect_quote, detect_separator, read_sample
from techdeck_tasks.pipeline.sources.doubles import Lost, lost
from techdeck_tasks.pipeline.sources.limits import MAX_COLUMNS

Rows = TypeVar("Rows", pl.LazyFrame, pl.DataFrame)
# One byte, as Polars needs it, that ends no line and quotes nothing.
_MAX_HEADER_BYTES = 1 << 26
_SEPARATOR = r"^[\x01-\x09\x0b\x0c\x0e-!#-&(-\x7f]$"
# Excel's own first line, which names the separator: no row.
_DIRECTIVE = re.compile(rf'"?sep=({_SEPARATOR[1:-1]})"?\r?\n', re.IGNORECASE)
# Polars has forms of its own for these: 01/02/2020 would be the first of February.
_READ: dict[DtypeName, type[pl.DataType]] = dict.fromkeys(("bool", "date", "datetime"), pl.String)
_MARKUP = re.compile(r"\s*<(?:!doctype\s|html\b|\?xml\s)", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00\x02-\x08\x0e-\x1b]")


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("a name is there twice")
    return names


class CsvParams(StageParams):
    """How CSV is read. Rows without any value are left out, as empty lines are.

    Attributes:
        has_header: the first row has the names.
        columns: the names of the columns, in order; needed without a header.
        separator: one ASCII character; ``auto`` takes that of a first line ``sep=;``, as Excel does, or finds
            comma, semicolon, tab or pipe.
        quote: the character around fields that have a separator in them; ``auto`` finds " or '.
        comment_prefix: rows that begin so are left out.
        trim: take away spaces around values and names, before anything else is done with them.
        null_values: texts that mean "missing".
        infer_types: False reads every column as text, so that the zeros of ``01234`` stay.
        dtypes: types of columns by name; the others are inferred from the first 10,000 rows, and from the
            whole file where a later value does not fit.
    """

    has_header: bool = True
    columns: Annotated[list[str], AfterValidator(_each_once)] | None = Field(None, min_length=1)
    separator: Literal["auto"] | Annotated[str, Field(pattern=_SEPARATOR)] = "auto"
    quote: Literal["auto", '"', "'"] = "auto"
    comment_prefix: str | None = Field(None, min_length=1, max_length=5)
    trim: bool = False
    null_values: list[str] = Field(default_factory=lambda: [""])
    infer_types: bool = True
    dtypes: dict[str, DtypeName] = Field(default_factory=dict)


def csv_scan(path: Path, params: CsvParams) -> CsvScan:
    """Return the scan of a CSV file, with the dialect given or found.

    Raises:
        ValidationError: its first line is none of a table.
    """
    sample = read_sample(path, params.comment_prefix)
    directive = _DIRECTIVE.match(sample)
    if directive is not None:
        sample = sample[directive.end() :]
    if _MARKUP.match(sample):
        raise ValidationError(
            "the source is no CSV but a page of the web or XML, as servers send for a login or an error; "
            "check source.url and source.format",
            field="source",
            validation_rule="csv",
        )
    # Blocks of zeros, which a broken disk or transfer leaves, would be one odd name and no row.
    if _CONTROLS.search(sample.partition("\n")[0]):
        raise ValidationError(
            "the source is no CSV: its first line has control characters; transfer it again, "
            "or check source.format and encoding",
            field="source",
            validation_rule="csv",
        )
    quote = detect_quote(sample) if params.quote == "auto" else params.quote
    separator = params.separator
    if separator == "auto":
        separator = directive[1] if directive else detect_separator(sample, quote)
    scan = CsvScan(path, params, separator, quote, 1 if directive else 0)
    scan.require_columns_within_limit()
    return scan


@dataclass(frozen=True, slots=True)
class CsvScan:
    """A UTF-8 file with its dialect.

    Attributes:
        path: the file.
        params: how it is to be read.
        separator: what is between fields.
        quote: what is around a field that needs it.
        skipped_lines: so many lines at the beginning are no rows.
    """

    path: Path
    params: CsvParams
    separator: str
    quote: str
    skipped_lines: int = 0

    def frame(self, inference_rows: int | None) -> pl.LazyFrame:
        """Return the rows; types are inferred from so many of them, None: from all.

        Raises:
            ValidationError: `columns` has not as many names as there are columns, or `dtypes` others.
        """
        if self.params.columns is not None:
            self._require_width(len(self.params.columns))
        rows = self._scan(
            self.path,
            has_header=self.params.has_header,
            new_columns=self.params.columns,
            null_values=[text for text in self.params.null_values if text],
            empty_string_is_null="" in self.params.null_values,
            schema_overrides={
                name: _READ.get(dtype, dtype_of(dtype)) for name, dtype in self.params.dtypes.items()
            },
            infer_schema=self.params.infer_types,
            infer_schema_length=inference_rows,
        )
        require_columns(self.params.dtypes, rows.collect_schema())
        return with_dtypes(rows, self._converted)

    @property
    def _converted(self) -> dict[str, DtypeName]:
        """The columns that are read as text, and the types they get then."""
        return {name: dtype for name, dtype in self.params.dtypes.items() if dtype in _READ}

    def require_columns_within_limit(self) -> None:
        """Check, before Polars makes each of them, that there are not too many columns.

        Raises:
            ValidationError: there are.
        """
        with self.path.open("rb") as file:
            for _ in range(self.skipped_lines):
                file.readline()
            if file.readline(_MAX_HEADER_BYTES).count(self.separator.encode()) >= MAX_COLUMNS:
                raise ValidationError(
                    f"the first row has more than {MAX_COLUMNS} columns; give each value a row, "
                    "or check separator",
                    field="source",
                    validation_rule="csv",
                )

    def with_dtypes(self, dtypes: Mapping[str, DtypeName]) -> CsvScan:
        """Return the scan with these types of columns, too."""
        params = self.params.model_copy(update={"dtypes": {**self.params.dtypes, **dtypes}})
        return replace(self, params=params)

    def _require_width(self, names: int) -> None:
        width = len(
            self._scan(self.path, has_header=self.params.has_header, infer_schema=False).collect_schema()
        )
        if width != names:
            raise ValidationError(
                f"the file has {width} columns, and columns has {names} names; check columns and separator",
                field="params.columns",
                validation_rule="columns",
            )

    def piece(self, data: bytes, schema: pl.Schema, *, first: bool) -> pl.DataFrame:
        """Return the rows of whole lines of the file, its `first` or later ones, with the types given."""
        raw = self._raw(
            data,
            skip_lines=self.skipped_lines if first else 0,
            has_header=first and self.params.has_header,
            null_values=[text for text in self.params.null_values if text],
            empty_string_is_null="" in self.params.null_values,
            schema={name: pl.String if name in self._converted else dtype for name, dtype in schema.items()},
        )
        rows = _without_blank(raw.collect(engine="streaming"))
        if not self._converted:
            return rows
        return with_dtypes(rows.lazy(), self._converted).collect(engine="streaming")

    def lost(
        self, large: Mapping[str, pl.DataType], piece: bytes | None = None, *, later: Sequence[str] = ()
    ) -> Lost:
        """Return what the texts lose in columns that `large_floats` found.

        Args:
            large: the columns.
            piece: whole lines of the file; None: all of it.
            later: the names of the columns where `piece` does not begin with the file.
        """
        if not large:
            return Lost()
        texts = self._raw(
            self.path if piece is None else piece,
            skip_lines=0 if later else self.skipped_lines,
            has_header=self.params.has_header and not later,
            new_columns=later or self.params.columns,
            null_values=self.params.null_values,
            infer_schema=False,
        )
        known = texts.collect_schema()
        return lost(texts, {name: dtype for name, dtype in large.items() if name in known})

    def trimmed(self, target: Path) -> CsvScan:
        """Return the scan of a copy without spaces around values and names."""
        raw = self._scan(
            self.path,
            has_header=self.params.has_header,
            new_columns=self.params.columns,
            infer_schema=False,
            empty_string_is_null=False,
        )
        names = {name: name.strip() for name in raw.collect_schema()}
        with target.open("wb") as file:
            raw.select(pl.all().str.strip_chars()).rename(names).sink_csv(file)
        params = self.params.model_copy(update={"has_header": True, "columns": None, "comment_prefix": None})
        return CsvScan(target, params, ",", '"')

    def _scan(self, source: Path, **options: Any) -> pl.LazyFrame:
        return _without_blank(self._raw(source, skip_lines=self.skipped_lines, **options))

    def _raw(self, source: Path | bytes, **options: Any) -> pl.LazyFrame:
        return pl.scan_csv(
            source,
            separator=self.separator,
            quote_char=self.quote,
            comment_prefix=self.params.comment_prefix,
            glob=False,
            **options,
        )


def require_columns(named: Iterable[str], schema: pl.Schema) -> None:
    """Check that the columns whose types are given are there.

    Raises:
        ValidationError: one is not.
    """
    if missing := sorted(set(named) - set(schema)):
        raise ValidationError(
            f"the source has no column {', '.join(map(repr, missing[:5]))}; check dtypes",
            field="params.dtypes",
            validation_rule="column_present",
        )


def _without_blank(rows: Rows) -> Rows:
    """Take empty lines away, which Polars reads as rows of nulls or of empty texts."""
    schema = rows.collect_schema()
    if len(schema) == 1:
        return rows
    if isinstance(rows, pl.DataFrame):
        return _without_blank_rows(rows)
    # As one predicate over all columns, Polars needs memory in the square of their number: 17 GB for 4,000.
    return rows.map_batches(_without_blank_rows, schema=schema, streamable=True)


def _without_blank_rows(rows: pl.DataFrame) -> pl.DataFrame:
    blank: pl.Series | None = None
    for column in rows.iter_columns():
        missing = column.is_null()
        if column.dtype == pl.String:
            missing |= (column == "").fill_null(value=False)
        blank = missing if blank is None else blank & missing
        if not blank.any():  # mostly so after the first column
            return rows
    return rows if blank is None else rows.filter(~blank)

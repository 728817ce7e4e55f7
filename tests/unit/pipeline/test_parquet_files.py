from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pytest

from techdeck_tasks.pipeline.data.parquet_files import concatenate


def frame(rows: int, start: int = 0) -> pl.DataFrame:
    numbers = range(start, start + rows)
    return pl.DataFrame(
        {
            "n": list(numbers),
            "text": [None if n % 7 == 0 else f"name {n}" for n in numbers],
            "flag": [n % 2 == 0 for n in numbers],
            "day": [date(2024, 1, 1 + n % 28) for n in numbers],
            "list": [[n, n + 1] for n in numbers],
        },
        schema={
            "n": pl.Int64,
            "text": pl.String,
            "flag": pl.Boolean,
            "day": pl.Date,
            "list": pl.List(pl.Int64),
        },
    )


def copies(paths: Sequence[Path]) -> list[Callable[[BinaryIO], None]]:
    def copy(path: Path, target: BinaryIO) -> None:
        target.write(path.read_bytes())

    return [partial(copy, path) for path in paths]


@pytest.mark.parametrize("sizes", [(3,), (10, 1, 5), (0, 4), (0, 0), (1,) * 40, (70_000, 3)])
def test_rows_of_all_files_are_there_in_order(sizes: tuple[int, ...], tmp_path: Path) -> None:
    frames = [frame(size, start=1000 * number) for number, size in enumerate(sizes)]
    paths = [tmp_path / f"{number}.parquet" for number in range(len(sizes))]
    for path, part in zip(paths, frames, strict=True):
        part.write_parquet(path, row_group_size=1000)
    target = tmp_path / "all.parquet"
    assert concatenate(copies(paths), target)
    expected = pl.concat(frames)
    assert pl.read_parquet(target).equals(expected)
    assert pl.read_parquet(target, columns=["text"]).equals(expected.select("text"))
    # By the statistics whole row groups are left out.
    late = pl.col("n") >= 1000
    assert pl.scan_parquet(target).filter(late).collect().equals(expected.filter(late))
    assert pl.read_parquet_metadata(target) == pl.read_parquet_metadata(paths[0])


def test_what_was_put_together_can_be_put_together_again(tmp_path: Path) -> None:
    frame(100).write_parquet(one := tmp_path / "one.parquet")
    assert concatenate(copies([one, one]), tmp_path / "two.parquet")
    assert concatenate(copies([tmp_path / "two.parquet", one]), tmp_path / "three.parquet")
    assert pl.read_parquet(tmp_path / "three.parquet").equals(pl.concat([frame(100)] * 3))


def test_files_of_different_columns_are_not_put_together(tmp_path: Path) -> None:
    frame(3).write_parquet(tmp_path / "a.parquet")
    frame(3).rename({"n": "m"}).write_parquet(tmp_path / "b.parquet")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    assert not concatenate(copies(paths), tmp_path / "c.parquet")

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import polars as pl
import pytest

from techdeck_tasks.errors import DataProcessingError, PipelineExecutionError, ValidationError
from techdeck_tasks.pipeline.artifacts import ArtifactRef, ArtifactStore

FRAME = pl.DataFrame({"age": [36, 51], "sex": ["F", "M"]})


@pytest.fixture(params=["local", "file", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    folder = tmp_path / "artifacts"
    urls = {"local": str(folder), "file": f"file://{folder}/", "memory": f"memory://{tmp_path.name}"}
    return ArtifactStore(urls[request.param])


def test_what_is_written_is_read_back(any_store: ArtifactStore, tmp_path: Path) -> None:
    ref = any_store.write(FRAME.lazy(), "run", "load", 0)
    assert (ref.rows, ref.format) == (2, "parquet")
    assert any_store.scan(ref, tmp_path).collect().equals(FRAME)


def test_a_reference_survives_json(any_store: ArtifactStore) -> None:
    ref = any_store.write(FRAME, "run", "load", 0)
    assert ArtifactRef.from_dict(json.loads(json.dumps(ref.to_dict()))) == ref


def test_attempts_do_not_touch_each_other_s_files(any_store: ArtifactStore, tmp_path: Path) -> None:
    first = any_store.write(FRAME, "run", "load", 0)
    second = any_store.write(FRAME.head(1), "run", "load", 0)
    assert first.url != second.url
    assert any_store.scan(first, tmp_path).collect().height == 2


def test_an_artifact_that_is_gone_or_changed_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    ref = store.write(FRAME, "run", "load", 0)
    with Path(ref.url).open("ab") as file:
        file.write(b"x")
    with pytest.raises(PipelineExecutionError, match="is not what was written"):
        store.scan(ref, tmp_path)
    Path(ref.url).unlink()
    with pytest.raises(PipelineExecutionError, match="is gone"):
        store.scan(ref, tmp_path)


def test_a_remote_artifact_that_is_gone_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(f"memory://{tmp_path.name}")
    ref = store.write(FRAME, "run", "load", 0)
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    with pytest.raises(PipelineExecutionError, match="is gone"):
        store.scan(ref, tmp_path)


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "{root}/../secret.parquet", "{root}2/x.parquet", "https://h/x"]
)
def test_a_reference_out_of_the_store_is_refused(tmp_path: Path, url: str) -> None:
    root = tmp_path / "artifacts"
    with pytest.raises(ValidationError, match="not of this store"):
        ArtifactStore(str(root)).scan(ArtifactRef(url.format(root=root), 1, 1, "0"), tmp_path)


def test_a_frame_that_cannot_be_computed_leaves_nothing_and_shows_no_value(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    frame = pl.DataFrame({"ssn": ["123-45-6789"]}).lazy().cast(pl.Int64)
    for _ in range(50):  # a late thread of Polars would leave its file in one of fifteen
        with pytest.raises(DataProcessingError) as caught:
            store.write(frame, "run", "load", 0)
    assert "123-45" not in str(caught.value.to_dict())
    assert caught.value.__cause__ is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

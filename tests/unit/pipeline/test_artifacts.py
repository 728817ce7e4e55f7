from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import polars as pl
import pytest

from techdeck_tasks.errors import (
    DataProcessingError,
    PipelineExecutionError,
    ValidationError,
)
from techdeck_tasks.keyring import Cipher, KeySet, MissingKeyError
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore

FRAME = pl.DataFrame({"age": [36, 51], "sex": ["F", "M"]})


@pytest.fixture(params=["local", "file", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, cipher: Cipher) -> ArtifactStore:
    folder = tmp_path / "artifacts"
    urls = {"local": str(folder), "file": f"file://{folder}/", "memory": f"memory://{tmp_path.name}"}
    return ArtifactStore(urls[request.param], cipher)


def test_what_lies_in_the_store_is_sealed_and_bound_to_its_place(tmp_path: Path, cipher: Cipher) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), cipher)
    frame = pl.DataFrame({"name": ["Ada Lovelace"] * 3})
    mine, other = store.write(frame, "run", "load", 0), store.write(frame, "other", "load", 0)
    assert b"Lovelace" not in Path(mine.url).read_bytes()
    assert b"PAR1" not in Path(mine.url).read_bytes()
    Path(other.url).rename(moved := Path(mine.url).with_name(Path(other.url).name))
    swapped = replace(other, url=str(moved))
    with pytest.raises(PipelineExecutionError, match="is not what was written"):
        store.scan(swapped, tmp_path)


def test_an_artifact_under_a_key_that_is_not_held_is_told_so(tmp_path: Path, cipher: Cipher) -> None:
    ref = ArtifactStore(str(tmp_path), cipher).write(FRAME, "run", "load", 0)
    another = Cipher(KeySet("another", {"another": bytes(32)}))
    with pytest.raises(MissingKeyError, match="'test' is not in this key ring"):
        ArtifactStore(str(tmp_path), another).scan(ref, tmp_path)


def test_the_data_in_the_clear_is_its_owner_s_only(tmp_path: Path, cipher: Cipher) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), cipher)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    store.scan(store.write(FRAME, "run", "load", 0), workspace).collect()
    assert [path.stat().st_mode & 0o777 for path in workspace.iterdir()] == [0o600]


def test_a_removed_run_leaves_nothing(any_store: ArtifactStore) -> None:
    run_id, kept = str(uuid.uuid4()), any_store.write(FRAME, str(uuid.uuid4()), "load", 0)
    ref = any_store.write(FRAME, run_id, "load", 0)
    assert any_store.exists(ref)
    any_store.remove_run(run_id)
    any_store.remove_run(run_id)
    assert (any_store.exists(ref), any_store.exists(kept)) == (False, True)


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


def test_an_artifact_that_is_gone_or_changed_is_refused(tmp_path: Path, cipher: Cipher) -> None:
    store = ArtifactStore(str(tmp_path), cipher)
    ref = store.write(FRAME, "run", "load", 0)
    with Path(ref.url).open("ab") as file:
        file.write(b"x")
    with pytest.raises(PipelineExecutionError, match="is not what was written"):
        store.scan(ref, tmp_path)
    Path(ref.url).unlink()
    with pytest.raises(PipelineExecutionError, match="is gone"):
        store.scan(ref, tmp_path)


def test_of_artifacts_of_one_name_the_newest_is_found(any_store: ArtifactStore, tmp_path: Path) -> None:
    run_id = str(uuid.uuid4())
    assert any_store.newest(run_id, "check", "quarantine") is None
    for rows, attempt, name in ((1, 0, "quarantine"), (2, 0, "quarantine"), (0, 1, "quarantine-0001")):
        any_store.write(FRAME.head(rows), run_id, "check", attempt, name=name)
    found = any_store.newest(run_id, "check", "quarantine")
    assert found is not None
    assert any_store.scan(found, tmp_path).collect().height == 2


def test_what_another_delivery_of_the_attempt_wrote_does_not_stand_in(tmp_path: Path, cipher: Cipher) -> None:
    store = ArtifactStore(str(tmp_path), cipher)
    mine, other = (store.write(FRAME.head(rows), "run", "load", 0) for rows in (1, 2))
    Path(other.url).replace(mine.url)
    with pytest.raises(PipelineExecutionError, match="is not what was written"):
        store.scan(mine, tmp_path)


def test_a_remote_artifact_that_is_gone_is_refused(tmp_path: Path, cipher: Cipher) -> None:
    store = ArtifactStore(f"memory://{tmp_path.name}", cipher)
    ref = store.write(FRAME, "run", "load", 0)
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    with pytest.raises(PipelineExecutionError, match="is gone"):
        store.scan(ref, tmp_path)


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "{root}/../secret.parquet", "{root}2/x.parquet", "https://h/x"]
)
def test_a_reference_out_of_the_store_is_refused(tmp_path: Path, cipher: Cipher, url: str) -> None:
    root = tmp_path / "artifacts"
    with pytest.raises(ValidationError, match="not of this store"):
        ArtifactStore(str(root), cipher).scan(ArtifactRef(url.format(root=root), 1, 1), tmp_path)


def test_a_frame_that_cannot_be_computed_leaves_nothing_and_shows_no_value(
    tmp_path: Path, cipher: Cipher
) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), cipher)
    frame = pl.DataFrame({"ssn": ["123-45-6789"]}).lazy().cast(pl.Int64)
    for _ in range(50):  # a late thread of Polars would leave its file in one of fifteen
        with pytest.raises(DataProcessingError) as caught:
            store.write(frame, "run", "load", 0)
    assert "123-45" not in str(caught.value.to_dict())
    assert caught.value.__cause__ is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

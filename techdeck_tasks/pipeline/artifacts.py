"""Data handed from stage to stage: Parquet files in an fsspec folder; messages carry an `ArtifactRef`."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import polars as pl

from techdeck_tasks.errors import PipelineExecutionError, ValidationError
from techdeck_tasks.pipeline import location
from techdeck_tasks.pipeline.frame_errors import frame_errors

_BLOCK_BYTES = 1 << 20
_DIGEST_CHARS_IN_NAME = 16


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Names one artifact and what it must be. `sha256` is the hex digest of the file of `size_bytes`."""

    url: str
    rows: int
    size_bytes: int
    sha256: str
    format: str = "parquet"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild a reference."""
        return cls(**data)


class ArtifactStore:
    """Writes and reads artifacts under one folder.

    A file's name has its attempt and digest, so that an attempt which was given up and still writes can
    never change what another one delivered. Local folders are the owner's only (mode 0700).

    Args:
        url: the folder, a path or fsspec URL; made at the first write.
    """

    def __init__(self, url: str) -> None:
        self._remote = location.is_remote(url)
        self._root = url.rstrip("/") if self._remote else str(location.local_path(url).absolute())

    def write(
        self,
        frame: pl.LazyFrame | pl.DataFrame,
        run_id: str,
        stage: str,
        attempt: int,
        *,
        name: str = "output",
    ) -> ArtifactRef:
        """Run `frame` in batches into a new artifact and return its reference. Nothing half-written stays.

        Raises:
            DataProcessingError: the frame could not be computed.
            ServiceUnavailableError, ConnectionFailedError: the store could not be reached.
        """
        folder = f"{self._root}/{run_id}/{stage}"
        with tempfile.TemporaryDirectory(prefix="techdeck-") as workspace:
            staging = location.staging_folder(f"{folder}/{name}", Path(workspace), private=True)
            with tempfile.NamedTemporaryFile(
                dir=staging, prefix=f".{name}-{attempt}-", suffix=".tmp", delete=False
            ) as created:
                temporary = Path(created.name)
            try:
                with frame_errors(f"writing the {name} of stage {stage!r}"):
                    # By a path, Polars' threads may still make the file after an error was raised here.
                    with temporary.open("wb") as file:
                        frame.lazy().sink_parquet(file)
                    rows = int(pl.scan_parquet(temporary, glob=False).select(pl.len()).collect().item())
                digest = file_digest(temporary)
                size = temporary.stat().st_size
                url = f"{folder}/{name}-{attempt}-{digest[:_DIGEST_CHARS_IN_NAME]}.parquet"
                location.publish(temporary, url, private=True)
            finally:
                temporary.unlink(missing_ok=True)
        return ArtifactRef(url=url, rows=rows, size_bytes=size, sha256=digest)

    def scan(self, ref: ArtifactRef, workspace: Path) -> pl.LazyFrame:
        """Return the artifact's rows, lazily, after its size and digest were verified.

        Args:
            ref: what `write` returned.
            workspace: a local folder for a copy of a remote artifact; must outlive the frame.

        Raises:
            PipelineExecutionError: the file is gone or is not what was written.
            ValidationError: the reference points outside this store.
        """
        if not ref.url.startswith(self._root + "/") or "/../" in ref.url:
            raise ValidationError(
                "the artifact is not of this store; check TECHDECK_ARTIFACT_URL", field="url"
            )
        if self._remote:
            path = workspace / f"{ref.sha256}.{ref.format}"
            try:
                location.fetch(ref.url, path)
            except ValidationError:
                raise _broken(ref, "is gone") from None
        else:
            path = Path(ref.url)
        if not path.is_file():
            raise _broken(ref, "is gone")
        if path.stat().st_size != ref.size_bytes or file_digest(path) != ref.sha256:
            raise _broken(ref, "is not what was written")
        return pl.scan_parquet(path, glob=False)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _broken(ref: ArtifactRef, what: str) -> PipelineExecutionError:
    return PipelineExecutionError(
        f"the artifact {location.display(ref.url)} {what}; run the stage that made it again"
    )

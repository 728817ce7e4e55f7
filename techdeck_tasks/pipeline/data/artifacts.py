"""Data handed from stage to stage: sealed Parquet in an fsspec folder; messages carry an `ArtifactRef`."""

from __future__ import annotations

import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import polars as pl

from techdeck_tasks.errors import EncryptionError, PipelineExecutionError, ValidationError
from techdeck_tasks.keyring import MissingKeyError
from techdeck_tasks.pipeline.data import data_url, location
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.data.sealed_file import FILE_ID_BYTES, Cipher, open_stream, seal_stream
from techdeck_tasks.pipeline.data.workspace import private_workspace

ZSTD_LEVEL = 1
"""A tenth faster than the default, and files of nearly the same size."""
_ROW_GROUP_ROWS = 1 << 18
"""Of what is in memory already: fewer and larger groups are written sooner, and are smaller."""
_SUFFIX = ".parquet.sealed"


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Names one artifact and what it must be.

    `url` ends with the file's id; `size_bytes` is that of the sealed file. Where the artifact is several
    files, `parts` names them in the order of their rows, and `url` is that of the first.
    """

    url: str
    rows: int
    size_bytes: int
    format: str = "parquet"
    parts: tuple[ArtifactRef, ...] = ()

    @classmethod
    def of_parts(cls, parts: Sequence[ArtifactRef]) -> Self:
        """Return the artifact whose rows are those of `parts`, one after the other; at least one."""
        return cls(
            url=next((part.url for part in parts if part.url), ""),
            rows=sum(part.rows for part in parts),
            size_bytes=sum(part.size_bytes for part in parts),
            parts=tuple(parts),
        )

    @classmethod
    def passed_on(cls, rows: int) -> Self:
        """Return the artifact of rows that went straight on to the next stage, and lie nowhere."""
        return cls(url="", rows=rows, size_bytes=0)

    @property
    def files(self) -> tuple[ArtifactRef, ...]:
        """The files it is made of: itself or its parts, without those that were passed on."""
        return tuple(part for part in self.parts or (self,) if part.url)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild a reference."""
        parts = tuple(cls.from_dict(part) for part in data.get("parts", ()))
        return cls(**{**data, "parts": parts})


class ArtifactStore:
    """Writes and reads artifacts under one folder, sealed: what lies there is of no use without the keys.

    A file's name has its attempt and an id of its own, so that an attempt which was given up and still
    writes can never change what another one delivered. Local folders are the owner's only (mode 0700). In
    the clear the data is only in the private workspaces of running attempts.

    Args:
        url: the folder, a path or fsspec URL; made at the first write.
        cipher: seals the files.
    """

    def __init__(self, url: str, cipher: Cipher) -> None:
        self._remote = data_url.is_remote(url)
        self._root = url.rstrip("/") if self._remote else str(data_url.local_path(url).absolute())
        self._cipher = cipher

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
        place = f"{run_id}/{stage}/{name}-{attempt}"
        file_id = os.urandom(FILE_ID_BYTES)
        url = f"{self._root}/{place}-{file_id.hex()}{_SUFFIX}"
        with self._staged(url) as temporary, ExitStack() as stack:
            with frame_errors(f"writing the {name} of stage {stage!r}"):
                plain, rows = stack.enter_context(_packed(frame))
            with temporary.open("wb") as file:
                seal_stream(self._cipher, plain, file, place.encode(), file_id)
            size_bytes = temporary.stat().st_size
            location.publish(temporary, url, private=True)
        return ArtifactRef(url=url, rows=rows, size_bytes=size_bytes)

    @contextmanager
    def _staged(self, url: str) -> Iterator[Path]:
        """Yield a file that `publish` can put at `url`; it is gone at the end."""
        with private_workspace() if self._remote else nullcontext(Path()) as workspace:
            staging = location.staging_folder(url, workspace, private=True)
            descriptor, name = tempfile.mkstemp(dir=staging, prefix=".artifact-", suffix=".tmp")
            os.close(descriptor)
            temporary = Path(name)
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    def scan(self, ref: ArtifactRef, workspace: Path) -> pl.LazyFrame:
        """Return the artifact's rows, lazily, after its files were authenticated.

        Args:
            ref: what `write` returned.
            workspace: a private local folder for the data in the clear; must outlive the frame.

        Raises:
            PipelineExecutionError: the file is gone or is not what was written.
            ValidationError: the reference points outside this store.
            MissingKeyError: this process does not hold the key it was sealed with.
        """
        if len(ref.files) != len(ref.parts or (ref,)):
            raise _broken(ref, "was passed on and not kept")
        plain = [self._opened(part, workspace) for part in ref.files]
        return pl.scan_parquet(plain, glob=False)

    def _opened(self, ref: ArtifactRef, workspace: Path) -> Path:
        """Return the Parquet file of an artifact that is one file, in the clear, in `workspace`."""
        _, file_id = self._place(ref)
        plain = workspace / f"{file_id.hex()}.{ref.format}"
        if not plain.is_file():
            opening = plain.with_suffix(".tmp")
            descriptor = os.open(opening, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                self.copy(ref, target, workspace)
            opening.replace(plain)
        return plain

    def copy(self, ref: ArtifactRef, target: BinaryIO, workspace: Path) -> None:
        """Write the Parquet file of an artifact that is one file to `target`, in the clear.

        Args:
            ref: what `write` returned, or one of its `files`.
            target: what was written to it must be thrown away where this raises.
            workspace: a private local folder.

        Raises:
            As `scan`.
        """
        place, file_id = self._place(ref)
        sealed = data_url.local_path(ref.url)
        if self._remote:
            sealed = workspace / f"{file_id.hex()}{_SUFFIX}"
            try:
                location.fetch(ref.url, sealed)
            except ValidationError:
                raise _broken(ref, "is gone") from None
        if not sealed.is_file():
            raise _broken(ref, "is gone")
        with sealed.open("rb") as source:
            try:
                open_stream(self._cipher, source, target, place.encode(), file_id)
            except MissingKeyError:
                raise
            except EncryptionError:
                raise _broken(ref, "is not what was written") from None
        if self._remote:
            sealed.unlink()

    def newest(self, run_id: str, stage: str, name: str) -> ArtifactRef | None:
        """Return the artifact of that name that was written last, if there is one; its rows are not counted.

        For what an attempt wrote that did not live to refer to it.

        Raises:
            ServiceUnavailableError, ConnectionFailedError: the store could not be reached.
        """
        folder = f"{self._root}/{uuid.UUID(run_id)}/{stage}"
        wanted = re.compile(rf"{re.escape(name)}-[0-9]+-[0-9a-f]{{{2 * FILE_ID_BYTES}}}{re.escape(_SUFFIX)}")
        found = [
            (moment, each) for each, moment in location.files_in(folder).items() if wanted.fullmatch(each)
        ]
        return ArtifactRef(url=f"{folder}/{max(found)[1]}", rows=0, size_bytes=0) if found else None

    def exists(self, ref: ArtifactRef) -> bool:
        """Tell whether the artifact's file is there; its content is verified when it is read.

        Raises:
            ValidationError: the reference points outside this store.
            ServiceUnavailableError, ConnectionFailedError: the store could not be reached.
        """
        for part in ref.files:
            self._place(part)
        return all(location.exists(part.url) for part in ref.files)

    def remove_run(self, run_id: str) -> None:
        """Remove all artifacts of a run, if there are any.

        Raises:
            ServiceUnavailableError, ConnectionFailedError: the store could not be reached.
        """
        location.remove_folder(f"{self._root}/{uuid.UUID(run_id)}")

    def _place(self, ref: ArtifactRef) -> tuple[str, bytes]:
        """Return what a file is bound to: its run, stage, name and attempt, and its id."""
        place, _, name = ref.url.removeprefix(self._root + "/").rpartition("-")
        try:
            file_id = bytes.fromhex(name.removesuffix(_SUFFIX))
        except ValueError:
            file_id = b""
        if not file_id or not ref.url.startswith(self._root + "/") or "/../" in ref.url:
            raise ValidationError(
                "the artifact is not of this store; check TECHDECK_ARTIFACT_URL", field="url"
            )
        return place, file_id


@contextmanager
def _packed(frame: pl.LazyFrame | pl.DataFrame) -> Iterator[tuple[BinaryIO, int]]:
    """Yield the rows of `frame` as Parquet, to be read, and how many they are."""
    if isinstance(frame, pl.DataFrame):  # it is in memory, and takes less packed
        packed = io.BytesIO()
        frame.write_parquet(packed, compression_level=ZSTD_LEVEL, row_group_size=_ROW_GROUP_ROWS)
        packed.seek(0)
        yield packed, frame.height
        return
    with private_workspace() as workspace:
        plain = workspace / "plain.parquet"
        # By a path, Polars' threads may still make the file after an error was raised here.
        with plain.open("wb") as file:
            frame.sink_parquet(file, compression_level=ZSTD_LEVEL)
        rows = int(pl.scan_parquet(plain, glob=False).select(pl.len()).collect().item())
        with plain.open("rb") as file:
            yield file, rows


def _broken(ref: ArtifactRef, what: str) -> PipelineExecutionError:
    return PipelineExecutionError(
        f"the artifact {data_url.display(ref.url)} {what}; run the stage that made it again"
    )

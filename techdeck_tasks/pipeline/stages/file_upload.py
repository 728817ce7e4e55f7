"""The stage that takes a file in from outside: by the rules of an upload, and only then into an artifact."""

from __future__ import annotations

from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

from pydantic import Field

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.pipeline.data import data_url, location
from techdeck_tasks.pipeline.data.boundary import Boundary
from techdeck_tasks.pipeline.data.digest import file_digest
from techdeck_tasks.pipeline.registry import StageContext, StageParams, StageResult, stage
from techdeck_tasks.pipeline.sources.params import DatasetLoadParams
from techdeck_tasks.pipeline.stages.dataset_load import dataset_load
from techdeck_tasks.pipeline.upload.record import SCHEME, AcceptedFile, UploadLimits
from techdeck_tasks.pipeline.upload.store import UploadStore

_CHUNK_BYTES = 4 << 20


class FileUploadParams(StageParams):
    """Parameters of `file_upload`.

    Attributes:
        folder: the local folder of uploads, default: the service's; what is refused is in ``quarantine``.
        sha256: the digest that the sender gave; without it the file's own is noted.
        max_bytes: the most that the file may have.
        load: parameters of `dataset_load` for the accepted file.
    """

    folder: data_url.DataUrl | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    max_bytes: int = Field(UploadLimits().max_bytes, ge=1)
    load: DatasetLoadParams = DatasetLoadParams()

    def places(self) -> dict[str, str]:
        """Return the folder, where it is not the service's."""
        return {} if self.folder is None else {"folder": self.folder}


@stage("file_upload", params=FileUploadParams, summary="take in a file from outside, checked, and read it")
def file_upload(context: StageContext, params: FileUploadParams) -> StageResult:
    """Take the source through the checks of an upload, and load what was accepted; only the artifact stays.

    A file that was sent to the service (``upload://``) stays there until its time is over, so that the run
    can be repeated.

    Raises:
        FileUploadError: its name, size, digest or content is refused, or it is no upload any more.
        As `dataset_load`.
    """
    url = context.source.url
    limits = UploadLimits(max_bytes=params.max_bytes, max_unpacked_bytes=params.load.max_bytes)
    folder = data_url.local_path(params.folder) if params.folder else context.upload_folder
    store = UploadStore(folder, limits, SystemClock())
    path, name = context.workspace / "upload", Path(data_url.display(url)).name
    if url.startswith(f"{SCHEME}://"):
        sent = UploadStore(context.upload_folder, limits, SystemClock()).accepted_at(url)
        path, name = sent.path, sent.filename
    elif data_url.is_remote(url):
        location.fetch(url, path, max_bytes=params.max_bytes, boundary=context.boundary)
    else:
        path = data_url.local_path(url)
        location.require_file(path)
    accepted = _taken(store, path, name, params.sha256 or file_digest(path))
    source = context.source.model_copy(update={"url": str(accepted.path)})
    try:
        # The file is in the service's own folder now, where it was put here.
        loaded = dataset_load(replace(context, source=source, boundary=Boundary()), params.load)
    finally:
        store.discard(accepted)
    facts = {each: value for each, value in asdict(accepted).items() if each not in ("path", "owner")}
    return StageResult(loaded.output, {**loaded.report, **facts})


def _taken(store: UploadStore, path: Path, name: str, digest: str) -> AcceptedFile:
    upload = store.begin(name, path.stat().st_size, digest)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                upload = store.put_chunk(
                    upload.upload_id, upload.received_bytes, chunk, sha256(chunk).hexdigest()
                )
        return store.finish(upload.upload_id)
    finally:
        store.cancel(upload.upload_id)

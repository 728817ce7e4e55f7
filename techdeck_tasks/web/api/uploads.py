"""Uploads: a file comes in by chunks, can be resumed, is checked, and is then a pipeline's source.

The headers are those of tus 1.0 (https://tus.io/protocols/resumable-upload), with its checksum extension.
"""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Path, Request, Response
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.concurrency import run_in_threadpool

from techdeck_tasks.pipeline.upload.names import shown_name
from techdeck_tasks.pipeline.upload.record import AcceptedFile, UnknownUploadError, Upload
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.web.api.fields import example
from techdeck_tasks.web.auth import Caller, RuntimeOf, Submitter

PATH = "/api/v1/uploads/"
CHUNK_TYPE = "application/offset+octet-stream"

router = APIRouter(prefix="/uploads", tags=["uploads"])

UploadId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]

_UPLOAD = {
    "upload_id": "9f6c1f0e5d1c4a41b1a7f2f3a5f5f1b2",
    "state": "open",
    "filename": "patients.csv",
    "size_bytes": 73_400_320,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "received_bytes": 8_388_608,
    "max_chunk_bytes": 8_388_608,
}
_SOURCE = {"url": "upload://9f6c1f0e5d1c4a41b1a7f2f3a5f5f1b2/patients.csv"}
_ACCEPTED = {**_UPLOAD, "state": "accepted", "received_bytes": 73_400_320, "source": _SOURCE}


class Announced(BaseModel):
    """The file that is going to be sent."""

    model_config = ConfigDict(extra="forbid")

    filename: Annotated[str, StringConstraints(max_length=1000)]
    size_bytes: int
    sha256: Annotated[str, StringConstraints(max_length=64)]


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    responses={
        **example({**_UPLOAD, "received_bytes": 0}, "It is open", HTTPStatus.CREATED),
        HTTPStatus.TOO_MANY_REQUESTS: {
            "description": "You have too many open uploads, or too many bytes here"
        },
    },
)
def begin(runtime: RuntimeOf, caller: Submitter, announced: Announced, response: Response) -> dict[str, Any]:
    """Announce a file. Its name, size and digest must be right before a byte is sent."""
    runtime.record_action(
        "upload",
        "upload.begin",
        caller.name,
        filename=shown_name(announced.filename),
        size_bytes=announced.size_bytes,
        sha256=announced.sha256,
    )
    upload = runtime.uploads.begin(
        announced.filename, announced.size_bytes, announced.sha256, owner=caller.name
    )
    response.headers["Location"] = f"{PATH}{upload.upload_id}"
    return _shown(runtime, upload, response)


@router.get("", responses=example({"uploads": [_UPLOAD, _ACCEPTED]}))
def list_uploads(runtime: RuntimeOf, caller: Submitter) -> dict[str, Any]:
    """List your own, open and accepted, the oldest first: what may be gone on with, or cancelled."""
    return {"uploads": [_facts(runtime, each) for each in runtime.uploads.of_owner(caller.name)]}


@router.get("/{upload_id}", responses=example(_UPLOAD))
def show(runtime: RuntimeOf, caller: Submitter, upload_id: UploadId, response: Response) -> dict[str, Any]:
    """Tell how far an upload is; who lost touch goes on at `received_bytes`."""
    return _shown(runtime, _mine(runtime, caller, upload_id), response)


@router.head("/{upload_id}", include_in_schema=False)
def measure(runtime: RuntimeOf, caller: Submitter, upload_id: UploadId, response: Response) -> None:
    """Tell how far an upload is, by headers alone."""
    _shown(runtime, _mine(runtime, caller, upload_id), response)


@router.patch(
    "/{upload_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses={HTTPStatus.CONFLICT: {"description": "It leaves a gap; Upload-Offset says where to go on"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {CHUNK_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def append(
    request: Request,
    runtime: RuntimeOf,
    caller: Submitter,
    upload_id: UploadId,
    *,
    upload_offset: Annotated[int, Header(ge=0, description="Where the chunk belongs, from 0.")],
    upload_checksum: Annotated[
        str, Header(pattern=r"^sha256 [A-Za-z0-9+/]{43}=$", description="`sha256 ` and the digest in base64.")
    ],
) -> Response:
    """Send a chunk. One that is there already changes nothing, so each may be sent again."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CHUNK_TYPE:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    found = await run_in_threadpool(_mine, runtime, caller, upload_id)
    if upload_offset > found.received_bytes or isinstance(found, AcceptedFile):
        raise HTTPException(HTTPStatus.CONFLICT, headers={"Upload-Offset": str(found.received_bytes)})
    chunk = await request.body()
    digest = base64.b64decode(upload_checksum.partition(" ")[2]).hex()
    upload = await run_in_threadpool(runtime.uploads.put_chunk, upload_id, upload_offset, chunk, digest)
    return Response(None, HTTPStatus.NO_CONTENT, {"Upload-Offset": str(upload.received_bytes)})


@router.post("/{upload_id}/complete", responses=example(_ACCEPTED))
def complete(
    runtime: RuntimeOf, caller: Submitter, upload_id: UploadId, response: Response
) -> dict[str, Any]:
    """Have the whole file checked; then `source` is one for a definition with the stage `file_upload`."""
    mine = _mine(runtime, caller, upload_id)
    runtime.record_action(
        "upload", "upload.complete", caller.name, upload_id=upload_id, filename=mine.filename
    )
    return _shown(runtime, runtime.uploads.finish(upload_id), response)


@router.delete("/{upload_id}", status_code=HTTPStatus.NO_CONTENT)
def cancel(runtime: RuntimeOf, caller: Submitter, upload_id: UploadId) -> None:
    """Remove what was sent; also an accepted file, which no run can read then."""
    mine = _mine(runtime, caller, upload_id)
    runtime.record_action("upload", "upload.cancel", caller.name, upload_id=upload_id, filename=mine.filename)
    if isinstance(mine, AcceptedFile):
        runtime.uploads.discard(mine)
    else:
        runtime.uploads.cancel(upload_id)


def _mine(runtime: Runtime, caller: Caller, upload_id: str) -> Upload | AcceptedFile:
    try:
        found = runtime.uploads.accepted(upload_id) or runtime.uploads.status(upload_id)
    except UnknownUploadError:
        raise HTTPException(HTTPStatus.NOT_FOUND) from None
    if found.owner != caller.name:
        # Another's upload is told from none by nobody.
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return found


def _shown(runtime: Runtime, upload: Upload | AcceptedFile, response: Response) -> dict[str, Any]:
    response.headers["Upload-Offset"] = str(upload.received_bytes)
    response.headers["Upload-Length"] = str(upload.size_bytes)
    return _facts(runtime, upload)


def _facts(runtime: Runtime, upload: Upload | AcceptedFile) -> dict[str, Any]:
    accepted = upload if isinstance(upload, AcceptedFile) else None
    return {
        "upload_id": upload.upload_id,
        "state": "accepted" if accepted else "open",
        "filename": upload.filename,
        "size_bytes": upload.size_bytes,
        "sha256": upload.sha256,
        "received_bytes": upload.received_bytes,
        "max_chunk_bytes": runtime.uploads.limits.max_chunk_bytes,
        "source": {"url": accepted.url} if accepted else None,
    }

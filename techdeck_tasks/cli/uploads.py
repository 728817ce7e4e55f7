"""``techdeck upload``: put a file where the workers find it, checked, as the source of a pipeline."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from techdeck_tasks.cli.console import err, out, print_json
from techdeck_tasks.cli.operators import OwnerOption, record_action
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.errors import FileUploadError, ValidationError
from techdeck_tasks.pipeline.data.digest import file_digest
from techdeck_tasks.pipeline.upload.names import shown_name
from techdeck_tasks.pipeline.upload.record import AcceptedFile, Upload
from techdeck_tasks.pipeline.upload.store import UploadStore
from techdeck_tasks.runtime import Runtime, create_app, runtime_of


def upload(
    file: Annotated[Path, typer.Argument(help="CSV, JSON, JSONL or Parquet, packed or not.")],
    owner: OwnerOption,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Go on with an upload that broke off.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Upload a file to TECHDECK_UPLOAD_DIR and print the URL that is its name as a source; recorded.

    techdeck run FILE --source URL then runs a pipeline on it whose first stage is file_upload.
    """
    size, digest = _checked(file)
    runtime = runtime_of(create_app())
    if resume is None:
        facts = {"filename": shown_name(file.name), "size_bytes": size, "sha256": digest}
        record_action(runtime, "upload", "upload.begin", owner, **facts)
        found: Upload | AcceptedFile = runtime.uploads.begin(file.name, size, digest, owner=owner)
    else:
        found = _begun(runtime.uploads, resume, digest)
    if isinstance(found, Upload):
        _send(runtime.uploads, found, file, quiet=json_output)
        found = _complete(runtime, found, owner)
    if json_output:
        print_json(_facts(found))
    else:
        out.print(found.url, markup=False, soft_wrap=True)


def _begun(uploads: UploadStore, upload_id: str, digest: str) -> Upload | AcceptedFile:
    # The status first: it refuses what is no id.
    try:
        begun: Upload | AcceptedFile = uploads.status(upload_id)
    except FileUploadError:
        accepted = uploads.accepted(upload_id)
        if accepted is None:
            raise
        begun = accepted
    if begun.sha256 != digest:
        raise ValidationError(
            f"upload {upload_id} is of another file, or of this one before it was changed; begin anew",
            field="resume",
        )
    return begun


def _send(uploads: UploadStore, upload: Upload, file: Path, *, quiet: bool) -> None:
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    try:
        with Progress(*columns, console=err, disable=quiet) as progress, file.open("rb") as source:
            bar = progress.add_task(
                shown_name(file.name), total=upload.size_bytes, completed=upload.received_bytes
            )
            source.seek(upload.received_bytes)
            while chunk := source.read(uploads.limits.max_chunk_bytes):
                offset = upload.received_bytes
                upload = uploads.put_chunk(upload.upload_id, offset, chunk, sha256(chunk).hexdigest())
                progress.update(bar, completed=upload.received_bytes)
    except BaseException:
        err.print(
            f"to go on: techdeck upload {file} --resume {upload.upload_id}", markup=False, soft_wrap=True
        )
        raise


def _complete(runtime: Runtime, upload: Upload, owner: str) -> AcceptedFile:
    facts = {"upload_id": upload.upload_id, "filename": upload.filename}
    record_action(runtime, "upload", "upload.complete", owner, **facts)
    return runtime.uploads.finish(upload.upload_id)


def _facts(accepted: AcceptedFile) -> dict[str, Any]:
    return {
        "upload_id": accepted.upload_id,
        "filename": accepted.filename,
        "size_bytes": accepted.size_bytes,
        "sha256": accepted.sha256,
        "source": {"url": accepted.url},
    }


def _checked(file: Path) -> tuple[int, str]:
    """Return the size and the SHA-256 of `file`."""
    try:
        return file.stat().st_size, file_digest(file)
    except OSError as error:
        raise ValidationError(f"{file} cannot be read: {error.strerror}", field="file") from None

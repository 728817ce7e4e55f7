"""What an upload is: announced, under way, accepted; and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from techdeck_tasks.errors import FileUploadError

SCHEME = "upload"
"""Of the URL by which a definition names an accepted file: ``upload://<id>/<name>``."""


class UnknownUploadError(FileUploadError):
    """There is no such upload: it never began, was cancelled, or was removed by its age."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of uploads, in bytes. `max_unpacked_bytes` is what a compressed file may grow to."""

    max_bytes: int = 1 << 30
    max_chunk_bytes: int = 8 << 20
    max_unpacked_bytes: int = 1 << 33


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload under way. A client that lost touch goes on at `received_bytes`; `owner` is who began it."""

    upload_id: str
    filename: str
    size_bytes: int
    sha256: str
    received_bytes: int = 0
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """A file that arrived whole and is of the format its name says."""

    path: Path
    filename: str
    size_bytes: int
    sha256: str
    owner: str | None = None

    @property
    def upload_id(self) -> str:
        """The upload that it came by."""
        return self.path.parent.name

    @property
    def received_bytes(self) -> int:
        """All of them."""
        return self.size_bytes

    @property
    def url(self) -> str:
        """What the source of a definition calls it, for the stage `file_upload`."""
        return f"{SCHEME}://{self.upload_id}/{quote(self.filename)}"

"""What an upload is: announced, under way, accepted; and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from techdeck_tasks.errors import FileUploadError, RateLimitError

SCHEME = "upload"
"""Of the URL by which a definition names an accepted file: ``upload://<id>/<name>``."""


OPEN, READY, QUARANTINE = "partial", "ready", "quarantine"
"""Folders of the store."""

MANIFEST, FACTS = "manifest.json", "facts.json"
"""What says which upload it is: in the first two folders, and in the last."""


class UnknownUploadError(FileUploadError):
    """There is no such upload: it never began, was cancelled, or was removed by its age."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of uploads.

    Attributes:
        max_bytes: of one file.
        max_chunk_bytes: of one chunk.
        max_unpacked_bytes: what a compressed file may grow to.
        max_open: how many uploads one owner may have under way.
        max_kept_bytes: of all files of one owner: announced, accepted and in quarantine.
    """

    max_bytes: int = 1 << 30
    max_chunk_bytes: int = 8 << 20
    max_unpacked_bytes: int = 1 << 33
    max_open: int = 16
    max_kept_bytes: int = 1 << 35

    def admit(self, upload: Upload, open_uploads: int, kept_bytes: int) -> None:
        """Check that there is room for `upload` beside what its owner has already.

        Raises:
            RateLimitError: there is not.
        """
        if open_uploads >= self.max_open:
            raise RateLimitError(
                f"{upload.owner} has {open_uploads} open uploads, and may have {self.max_open}; "
                "complete or cancel one of them",
                limit_type="open_uploads",
                current_usage=open_uploads,
                limit=self.max_open,
            )
        if kept_bytes + upload.size_bytes > self.max_kept_bytes:
            raise RateLimitError(
                f"the uploads of {upload.owner} have {kept_bytes} bytes, and with these "
                f"{upload.size_bytes} would have more than {self.max_kept_bytes}; "
                "cancel some that no run needs",
                limit_type="upload_bytes",
                current_usage=kept_bytes,
                limit=self.max_kept_bytes,
            )


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

    @classmethod
    def of(cls, upload: Upload, path: Path) -> Self:
        """Return what became of `upload`: the file at `path`."""
        return cls(path, upload.filename, upload.size_bytes, upload.sha256, upload.owner)

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

"""Local folders and files that survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

from techdeck_tasks.errors import ValidationError

PRIVATE_FOLDER = 0o700


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Make `folder` and its parents where missing; `private` folders are the owner's only.

    Raises:
        ValidationError: the path is not a folder, or may not be written.
    """
    try:
        if private:
            for missing in reversed([folder, *folder.parents]):
                if not missing.exists():
                    missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValidationError(
            f"the folder {folder} cannot be made ({type(error).__name__}); choose another", field="url"
        ) from None


def publish_local(source: Path, target: Path) -> None:
    """Rename `source` to `target`, for good."""
    flush(source)
    source.replace(target)
    # The rename itself survives a power cut only once its folder is on the disk.
    flush(target.parent)


def flush(*paths: Path) -> None:
    """Have files and folders written to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

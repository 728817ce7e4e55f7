"""The backup sink: a folder outside the database that holds the log a second time, in segments.

A segment is one file, written once: the rows between two checkpoints, sealed as they are, and the second
checkpoint. Object stores cannot append, and a file that is held open can be unlinked unnoticed. The folder:

    segments/00000000/000000000042.jsonl   one JSON object a line: rows, then the checkpoint
    keys/<key id>.json                     a sealed data key; apart, so that destroying a key can reach it
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from sqlalchemy.engine import Row

from techdeck_tasks.audit.folder import Folder
from techdeck_tasks.audit.row_document import from_base64, to_base64, to_line

_SEGMENT = re.compile(r"/(\d{12})\.jsonl$")
_KEY = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json$")
_SEGMENTS_A_FOLDER = 10_000

MAX_KEY_FILE_BYTES = 1 << 16
"""No data key is longer."""


class SegmentStore:
    """Segments in a folder that fsspec reaches. Errors of the file system pass through.

    Args:
        url: of the folder; made at the first write. A local one belongs to its owner alone (mode 0700).
    """

    def __init__(self, url: str) -> None:
        self._folder = Folder(url)

    def numbers(self) -> set[int]:
        """Return the numbers of all segments there are."""
        paths = self._folder.paths("segments")
        return {int(match[1]) for path in paths if (match := _SEGMENT.search(path))}

    def has(self, number: int) -> bool:
        """Tell whether a segment is there."""
        return self._folder.has(_segment_path(number))

    def write(self, number: int, content: IO[bytes]) -> None:
        """Write a segment; it is there as a whole or not at all, and on the disk of a local folder after."""
        self._folder.write(_segment_path(number), content)

    def lines(self, number: int) -> Iterator[bytes]:
        """Yield a segment's lines."""
        with self._folder.open(_segment_path(number)) as file:
            yield from file

    def keys(self) -> set[str]:
        """Return the ids of all data keys there are."""
        return {match[1] for path in self._folder.paths("keys") if (match := _KEY.search(path))}

    def has_key(self, key_id: str) -> bool:
        """Tell whether a data key is there."""
        return self._folder.has(_key_path(key_id))

    def write_key(self, key: Row[Any]) -> None:
        """Write a sealed data key, a row of `audit_data_key`; one of that id is replaced."""
        document = {
            "key_id": str(key.key_id),
            "tenant": key.tenant,
            "recipient_id": key.recipient_id,
            "sealed_key": to_base64(key.sealed_key),
        }
        self._folder.write(_key_path(str(key.key_id)), io.BytesIO(to_line(document)))

    def read_key(self, key_id: str) -> tuple[str, bytes] | None:
        """Return the recipient's id and the sealed data key; None where it is not there.

        Raises:
            MALFORMED of `row_document`: it is no data key.
        """
        try:
            with self._folder.open(_key_path(key_id)) as file:
                document = json.loads(file.read(MAX_KEY_FILE_BYTES))
        except FileNotFoundError:
            return None
        return str(document["recipient_id"]), from_base64(document["sealed_key"])

    def forget_key(self, key_id: str) -> None:
        """Remove a sealed data key: what it sealed can be read no more."""
        self._folder.remove(_key_path(key_id))


def _segment_path(number: int) -> str:
    return f"segments/{number // _SEGMENTS_A_FOLDER:08d}/{number:012d}.jsonl"


def _key_path(key_id: str) -> str:
    return f"keys/{key_id}.json"

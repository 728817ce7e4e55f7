"""Where the data of pipelines may lie: not in the service's own folders, and below roots if there are any.

A definition comes from whoever may start pipelines, and a worker reads and writes with its own rights.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from techdeck_tasks.errors import AuthorizationError
from techdeck_tasks.pipeline.data import workspace
from techdeck_tasks.pipeline.data.data_url import display

_LOCAL = re.compile(r"(?:file|local):(?://)?", re.IGNORECASE)
_SYSTEM = (Path("/proc"), Path("/sys"))
"""What a process was told, its secrets too, can be read there."""
_WRAPPERS = frozenset({"blockcache", "cached", "filecache", "simplecache", "tar", "zip"})
"""What only unpacks or caches the place that follows it in a chain of fsspec."""
_UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Boundary:
    """What a path or URL in a definition may name.

    Attributes:
        private: files and folders of the service itself, where no data may be.
        roots: folders and URLs below which all data must be; None: anywhere but in `private`.
    """

    private: tuple[Path, ...] = ()
    roots: tuple[str, ...] | None = None

    def check(self, places: Iterable[tuple[str, str]]) -> None:
        """Check places, each a field of a definition and its path or URL; links in them are followed.

        Of a file that was sent to the service (``upload://``) the place is no matter.

        Raises:
            AuthorizationError: one may not be used; the text names field and place.
        """
        for field, url in places:
            *wrappers, place = url.split("::")
            if unknown := {_scheme(wrapper) for wrapper in wrappers} - _WRAPPERS:
                raise AuthorizationError(
                    f"{field}: {display(url)} leads through {', '.join(sorted(unknown))}, which may end "
                    f"anywhere; in a chain there may be {', '.join(sorted(_WRAPPERS))}"
                )
            if _is_local(place):
                self._check_path(field, _path(place))
            elif _scheme(place) != _UPLOAD:
                self._check_remote(field, place)

    def _check_path(self, field: str, path: Path) -> None:
        private = (*_SYSTEM, *(folder.resolve() for folder in self.private))
        of_an_attempt = any(part.startswith(workspace.PREFIX) for part in path.parts)
        if of_an_attempt or any(map(path.is_relative_to, private)):
            raise AuthorizationError(
                f"{field}: {path} belongs to the service or the system; use another place"
            )
        roots = [_path(root) for root in self.roots or () if _is_local(root)]
        if self.roots is not None and not any(map(path.is_relative_to, roots)):
            raise self._outside(field, str(path))

    def _check_remote(self, field: str, url: str) -> None:
        roots = [root.rstrip("/") + "/" for root in self.roots or () if not _is_local(root)]
        climbs = ".." in unquote(urlsplit(url).path).split("/")
        if self.roots is not None and (climbs or not f"{url}/".startswith(tuple(roots))):
            raise self._outside(field, display(url))

    def _outside(self, field: str, place: str) -> AuthorizationError:
        allowed = ", ".join(map(display, self.roots or ())) or "nothing"
        return AuthorizationError(
            f"{field}: {place} is not below {allowed}; put it there, or add its place to TECHDECK_DATA_ROOTS"
        )


def _scheme(place: str) -> str:
    return place.partition("://")[0].lower()


def _is_local(place: str) -> bool:
    return "://" not in place or _LOCAL.match(place) is not None


def _path(place: str) -> Path:
    # Of a link that leads to itself pathlib's `resolve` makes an error of its own: no file is there.
    return Path(os.path.realpath(_LOCAL.sub("", place, count=1) if _LOCAL.match(place) else place))

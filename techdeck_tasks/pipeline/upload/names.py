"""Which names of uploaded files are taken, and how a name is shown that is not.

A name is refused rather than mended: a mended name can collide with another, and hides an attack.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from techdeck_tasks.pipeline.data import data_url

MAX_NAME_BYTES = 200
_SHOWN_CHARS = 80
_FORBIDDEN = frozenset('/\\<>:"|?*')
# Windows' devices; a file of that name with any suffix opens the device.
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE
)
_PERCENT_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# Controls, invisible and direction-changing characters, surrogates, unassigned ones, line separators.
_UNSAFE_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_PROGRAMS = frozenset(
    [
        *(
            "app",
            "asp",
            "aspx",
            "bat",
            "bin",
            "cgi",
            "class",
            "cmd",
            "com",
            "dll",
            "elf",
            "exe",
            "hta",
            "htm",
        ),
        *(
            "html",
            "jar",
            "js",
            "jse",
            "jsp",
            "lnk",
            "mjs",
            "msi",
            "php",
            "pif",
            "pl",
            "ps1",
            "py",
            "rb",
            "scr",
        ),
        *("sh", "svg", "vb", "vbe", "vbs", "wsf", "xhtml", "xlsm"),
    ]
)


def checked_name(name: str) -> str:
    """Return `name` in Unicode's composed form, if it is safe as a file's name on any system.

    Raises:
        ValueError: it is not; the text says why and does not repeat it.
    """
    plain = unicodedata.normalize("NFC", name)
    if problem := next(_problems(plain), None):
        raise ValueError(problem)
    return plain


def _problems(name: str) -> Iterator[str]:
    if not name.strip():
        yield "it is empty"
        return
    # What looks like a slash or a dot must not become one when another system folds it.
    folded = unicodedata.normalize("NFKC", name)
    stem, *suffixes = folded.lower().split(".")
    if any(unicodedata.category(char) in _UNSAFE_CATEGORIES for char in name):
        yield "it has control or invisible characters"
    if len(name.encode()) > MAX_NAME_BYTES:
        yield f"it has more than {MAX_NAME_BYTES} bytes"
    if _FORBIDDEN & set(folded) or _PERCENT_ESCAPE.search(folded) or ".." in folded:
        yield "it has characters of a path or an escape"
    if folded.count(".") != name.count("."):
        yield "it has a character that looks like a full stop"
    if folded[0] in ".-~ " or folded[-1] in ". ":
        yield "it begins or ends with a character that systems treat specially"
    if _DEVICE.fullmatch(stem.strip()):
        yield "it is reserved on Windows"
    if data_url.data_format(name) is None:
        yield f"its suffix is not one of {', '.join(f'.{form}' for form in data_url.FORMATS)}"
    if _PROGRAMS & set(suffixes):
        yield "it has the suffix of a program"


def shown_name(name: str) -> str:
    """Return `name` fit for a message: ASCII, of limited length, without anything that acts."""
    safe = re.sub(r"[^A-Za-z0-9._ -]", "?", name)
    return safe if len(safe) <= _SHOWN_CHARS else safe[: _SHOWN_CHARS - 3] + "..."

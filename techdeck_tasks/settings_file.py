"""The settings file: lines of ``NAME=value``, read strictly.

A line that cannot be read, or a name that is misspelt, would leave its setting at the default without a
word: a service that connects to another server than it was told, or that reads from everywhere for want of
its ``TECHDECK_DATA_ROOTS``. So both are refused.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream


def read_settings_file(path: Path) -> dict[str, str]:
    """Return the values by name, each as it is written; later lines win. A byte order mark is no part of it.

    Raises:
        ValueError: the file cannot be read, is not UTF-8, or has a line that is no ``NAME=value``; the text
            names file and line, and never what stands there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"settings file {path} is not UTF-8 (byte {error.start + 1}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(
            f"settings file {path} cannot be read ({error.strerror}); "
            "set TECHDECK_ENV_FILE to a file that this user may read, or to nothing"
        ) from None
    values = {}
    for line in parse_stream(StringIO(text)):
        if line.error or (line.key is not None and line.value is None):
            said = line.original.string
            number = line.original.line + said[: len(said) - len(said.lstrip())].count("\n")
            raise ValueError(
                f"settings file {path}, line {number}: this is no NAME=value; "
                "close quotes that were opened, and write comments behind #"
            )
        if line.key is not None and line.value is not None:
            values[line.key] = line.value
    return values


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the name in `known` that `name` was probably to be, None where none is like it."""
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None)

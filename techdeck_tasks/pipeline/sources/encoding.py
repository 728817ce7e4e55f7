"""The character encoding of a text file: found out, and turned into UTF-8 without a mark."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from techdeck_tasks.errors import ValidationError

_BLOCK_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 18
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNMARKED_UTF16 = ((0, "utf-16-be"), (1, "utf-16-le"))
# In text of European languages half of UTF-16's bytes are zero; a third is enough to tell.
_MIN_ZERO_SHARE = 1 / 3
# A superset of Latin-1's text, and what most old files of clinics in the West are in.
_PREFERRED = "cp1252"
# In UTF-8 an accented letter of the West; in cp1252 a Portuguese Ã before a symbol, which no word has.
_UTF8_LETTER = re.compile(rb"\xc3[\xa0-\xbf]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")
_WORD = re.compile(r"[^\W\d_]+")
# A symbol between two letters is a letter of another encoding; apostrophes and dashes are not.
_SYMBOL_IN_WORD = re.compile(
    r"[^\W\d_][^\w\s\x00-\x7f\u2019\u2013\u2014\u00ad\u00b7][^\W\d_]|[^\W\d_][\xb2\xb3\xb9][^\W\d_]"
)


def known_encoding(name: str) -> str:
    """Return `name` where Python has a text codec of that name.

    Raises:
        ValueError: it has none.
    """
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise ValueError(f"{name!r} is no encoding; use auto, utf-8, utf-16, cp1252 or latin-1") from None
    return name


def detect_encoding(path: Path) -> str:
    """Return the name of the codec that reads `path`.

    A byte order mark decides; then whether the whole file is valid UTF-8; then zero bytes, which only UTF-16
    has in plenty; then charset-normalizer, which prefers cp1252
    among encodings that fit as well.

    Raises:
        ValidationError: it is no text.
    """
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    offset = _first_invalid_utf8(path)
    for zeros, name in _UNMARKED_UTF16:
        half = head[zeros::2]
        if half and half.count(0) / len(half) > _MIN_ZERO_SHARE and not head[1 - zeros :: 2].count(0):
            return name
    if offset is None:
        return "utf-8"
    return _guess(path, offset)


def is_unmarked_text(path: Path) -> bool:
    """Whether the beginning of a file has neither a byte order mark nor a zero byte, as UTF-16 would.

    Nor lines that end with a carriage return alone.
    """
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    if b"\r" in head and b"\n" not in head:
        return False
    return b"\0" not in head and not head.startswith(tuple(mark for mark, _ in _MARKS))


def as_utf8(path: Path, encoding: str, target: Path) -> Path:
    """Return a file with the text of `path` in UTF-8 without a mark: `path` itself where it is that already.

    Raises:
        ValidationError: the bytes at a position that is named are not of that encoding.
    """
    if codecs.lookup(encoding).name == "utf-8":
        offset = _first_invalid_utf8(path)
        if offset is not None:
            raise _undecodable("utf-8", offset)
        with path.open("rb") as file:
            if not file.read(3).startswith(codecs.BOM_UTF8):
                return path
        encoding = "utf-8-sig"
    decoder = codecs.getincrementaldecoder(encoding)()
    done = 0
    with path.open("rb") as source, target.open("wb") as out:
        while True:
            block = source.read(_BLOCK_BYTES)
            try:
                out.write(decoder.decode(block, final=not block).encode())
            except UnicodeError as error:
                raise _undecodable(encoding, done + getattr(error, "start", 0)) from None
            if not block:
                return target
            done += len(block)


def require_no_zero(path: Path) -> None:
    """Check that a file of UTF-8 has no zero byte: blocks of them are what a broken disk or transfer leaves.

    Raises:
        ValidationError: it has one; the text tells where.
    """
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if (found := block.find(b"\0")) >= 0:
                raise ValidationError(
                    f"byte {done + found} of the source (in UTF-8) is zero, which no text has; "
                    "transfer it again, or set encoding",
                    field="source",
                    validation_rule="encoding",
                )
            done += len(block)


def _first_invalid_utf8(path: Path) -> int | None:
    """Return the offset of the first byte (or of its character) that is not UTF-8, None where all are."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return done - pending + error.start
            if not block:
                return None
            done += len(block)


def _guess(path: Path, offset: int) -> str:
    from charset_normalizer import from_bytes  # noqa: PLC0415 - slow to import, and seldom needed

    with path.open("rb") as file:
        file.seek(max(0, offset - _SAMPLE_BYTES // 2))
        # What is not ASCII decides, and there may be little of it.
        sample = b"".join(
            line for line in file.read(_SAMPLE_BYTES).splitlines(keepends=True) if not line.isascii()
        )
    if _UTF8_LETTER.search(sample) and _is_western(_UTF8_LETTER.sub(b"", sample)):
        raise ValidationError(
            f"byte {offset} of the source is not UTF-8, and other letters are: files of two encodings were "
            "joined; mend it, or set encoding",
            field="params.encoding",
            validation_rule="encoding",
        )
    found = from_bytes(sample)
    best = found.best()
    if (best is None or not best.coherence) and _is_western(sample):
        return _PREFERRED  # too little text to know its language by
    if best is None or _CONTROLS.search(str(best)):
        raise ValidationError(
            f"the source is no text: byte {offset} is not UTF-8 and no other encoding fits; "
            "check source.format, or set encoding",
            field="params.encoding",
            validation_rule="encoding",
        )
    as_likely = (match for match in found if match.chaos <= best.chaos and match.coherence >= best.coherence)
    names = {name for match in as_likely for name in (match.encoding, *match.could_be_from_charset)}
    return _PREFERRED if _PREFERRED in names else best.encoding


def _is_western(sample: bytes) -> bool:
    """Whether the bytes, as `_PREFERRED`, read like text of Western Europe.

    Most letters of a word are plain there; of a word in Cyrillic or Greek, none is.
    """
    try:
        text = sample.decode(_PREFERRED)
    except UnicodeDecodeError:
        return False
    if _CONTROLS.search(text) or _SYMBOL_IN_WORD.search(text):
        return False
    words = _WORD.findall(text)
    return all(2 * sum(map(str.isascii, word)) >= len(word) for word in words if len(word) > 1)


def with_line_feeds(path: Path, target: Path) -> Path:
    """Return a UTF-8 file whose lines end with a line feed: `path`, or a copy where it has carriage returns.

    Only a file that begins without a line feed is copied, as of an old Macintosh or some instruments;
    elsewhere a carriage return is text.
    """
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    if b"\n" in head or b"\r" not in head:
        return path
    with path.open(encoding="utf-8") as source, target.open("w", encoding="utf-8", newline="\n") as out:
        while block := source.read(_BLOCK_BYTES):
            out.write(block)
    return target


def _undecodable(encoding: str, offset: int) -> ValidationError:
    return ValidationError(
        f"byte {offset} of the source is not {encoding}; set encoding to what it is, or to auto",
        field="params.encoding",
        validation_rule="encoding",
    )

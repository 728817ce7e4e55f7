"""Reading a definition file, YAML or JSON, with bounds: no aliases, no deep nesting, no doubled keys."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from techdeck_tasks.errors import ValidationError

MAX_SIZE_BYTES = 1 << 20
MAX_DEPTH = 32


def read_document(path: Path) -> Any:
    """Return the data of a YAML or JSON file; a ``.json`` file must be JSON, any other may be both.

    Raises:
        ValidationError: the file cannot be read, is too large, malformed, or uses an alias.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_SIZE_BYTES + 1)
    except FileNotFoundError:
        raise ValidationError(
            f"there is no definition file {path}; check the path", field="definition"
        ) from None
    except OSError as error:
        raise ValidationError(
            f"the definition file {path} cannot be read ({type(error).__name__})", field="definition"
        ) from None
    if len(raw) > MAX_SIZE_BYTES:
        raise ValidationError(
            f"the definition file {path} is larger than {MAX_SIZE_BYTES} bytes; name data, do not hold it",
            field="definition",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _malformed(path, line, "is not UTF-8; save it as UTF-8") from None
    return _read_json(path, text) if path.suffix.lower() == ".json" else _read_yaml(path, text)


def _read_json(path: Path, text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValidationError(f"{path}: {constant} is not JSON; use a number or null", field="definition")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            doubled = next(key for position, (key, _) in enumerate(pairs) if key in dict(pairs[:position]))
            raise ValidationError(f"{path}: the key {doubled!r} is given twice; keep one", field="definition")
        return keys

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise _malformed(path, error.lineno, f"is malformed JSON: {error.msg}") from None
    except RecursionError:
        raise _malformed(path, 1, f"is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:  # an integer of more digits than Python converts
        raise ValidationError(f"{path}: a number has too many digits", field="definition") from None


def _read_yaml(path: Path, text: str) -> Any:
    try:
        _check_events(path, text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is SafeLoader that refuses doubled keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problem = ", ".join(text for text in (error.context, error.problem) if text)
        raise _malformed(
            path, mark.line + 1 if mark is not None else 1, f"is malformed YAML: {problem}"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise _malformed(path, line, "has a character that YAML does not allow; remove it") from None
    except (ValueError, OverflowError):  # a date or number that has the shape of one and is none
        raise ValidationError(f"{path}: a date or number is out of range", field="definition") from None


def _check_events(path: Path, text: str) -> None:
    """Refuse what makes a small file large in memory, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = (event.start_mark.line + 1) if event.start_mark is not None else 1
        if isinstance(event, yaml.AliasEvent):
            raise _malformed(path, line, "uses a YAML alias (*name); write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _malformed(path, line, f"is nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Loader(yaml.SafeLoader):
    """SafeLoader takes the last of two equal keys, and the first stage would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # SafeLoader's own message is better
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice; keep one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _malformed(path: Path, line: int, problem: str) -> ValidationError:
    return ValidationError(f"{path}, line {line}: the file {problem}", field="definition")

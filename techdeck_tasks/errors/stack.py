"""Where an exception and its causes came from, without the data they were about."""

from __future__ import annotations

import traceback

from techdeck_tasks.errors.anatomy import preceding, traceback_of
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction.foreign import dotted_name

_MAX_ERRORS = 8
_MAX_FRAMES = 30


def stack_of(error: BaseException) -> list[str]:
    """Return the chain of `error`, oldest cause first: its last frames, its type and text.

    Unlike `traceback.format_exception` it shows neither source lines nor a message that holds rows,
    parameters or inputs. Not yet redacted. At most 8 errors of at most 30 frames.
    """
    lines: list[str] = []
    for index, part in enumerate(reversed(_chain(error))):
        if index:
            lines.append("which led to:")
        lines.extend(_frames(part))
        lines.append(f"{dotted_name(type(part))}: {text_of(part)}")
    return lines


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and len(chain) < _MAX_ERRORS and all(step is not seen for seen in chain):
        chain.append(step)
        step = preceding(step)
    return chain


def _frames(error: BaseException) -> list[str]:
    steps = list(traceback.walk_tb(traceback_of(error)))[-_MAX_FRAMES:]
    return [
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_qualname}'
        for frame, line in steps
    ]

"""What an exit code tells a script."""

from __future__ import annotations

import pytest

from techdeck_tasks.cli.exits import Exit, exit_of
from techdeck_tasks.errors import (
    EncryptionError,
    PipelineExecutionError,
    RetryExhaustedError,
    ServiceUnavailableError,
    ValidationError,
)
from techdeck_tasks.settings import SettingsError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValidationError("no such file"), Exit.BAD_INPUT),
        (SettingsError("no number"), Exit.BAD_INPUT),
        (EncryptionError("no key"), Exit.BAD_INPUT),
        (PipelineExecutionError("no such run"), Exit.BAD_INPUT),
        (ServiceUnavailableError("away", "redis"), Exit.UNAVAILABLE),
        (RetryExhaustedError("tried"), Exit.FAILED),
    ],
)
def test_a_missing_key_is_told_apart_from_what_was_tried_and_failed(error: Exception, code: Exit) -> None:
    assert exit_of(error) is code

"""What an exit code tells a script."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from techdeck_tasks.cli.exits import Exit, Terminated, end_at_sigterm, exit_of
from techdeck_tasks.cli.pipelines import follow
from techdeck_tasks.errors import (
    EncryptionError,
    PipelineExecutionError,
    RetryExhaustedError,
    ServiceUnavailableError,
    ValidationError,
)
from techdeck_tasks.runtime import Runtime
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


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("default_sigterm")
def test_sigterm_closes_what_is_open_and_ends_with_143() -> None:
    end_at_sigterm()
    closed = []

    def wait_for_sigterm() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            closed.append("screen")

    with pytest.raises(Terminated) as caught:
        wait_for_sigterm()

    assert closed == ["screen"]
    assert caught.value.code == Exit.TERMINATED


@pytest.mark.usefixtures("default_sigterm")
def test_a_sigterm_that_is_to_be_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_at_sigterm()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.parametrize("end", [KeyboardInterrupt, Terminated])
def test_who_stops_following_a_run_is_told_how_to_find_it_again(
    capsys: pytest.CaptureFixture[str], end: type[BaseException]
) -> None:
    def get_run(run_id: str) -> NoReturn:
        raise end

    runtime: Any = SimpleNamespace(pipeline=SimpleNamespace(store=SimpleNamespace(get_run=get_run)))
    with pytest.raises(end):
        follow(cast("Runtime", runtime), "0186d8f0", quiet=True)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "run 0186d8f0 goes on: techdeck watch 0186d8f0, or techdeck cancel 0186d8f0" in printed.err

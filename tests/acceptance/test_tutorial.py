"""The tutorial, followed as a newcomer does: its files written, its commands run, in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl
import pytest

from techdeck_tasks.settings import ENV_PREFIX

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```(?P<kind>\w+)(?: (?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (?P<command>.+?)(?:   # exit (?P<code>\d))?$", re.MULTILINE)


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A newcomer's, in which `techdeck` and `python` are those of this installation."""
    programs = tmp_path_factory.mktemp("programs")
    for name, arguments in (("techdeck", "-m techdeck_tasks"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        program.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return {**inherited, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "100"}


def test_who_follows_the_tutorial_gets_where_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    ran = 0
    with ExitStack() as background:
        for block in _BLOCK.finditer(TUTORIAL.read_text()):
            if block["file"]:
                (tmp_path / block["file"]).write_text(block["text"])
                continue
            for command in _COMMAND.finditer(block["text"]):
                ran += 1
                if command["command"].endswith("techdeck up"):
                    background.enter_context(_up(command["command"], tmp_path, environment))
                    continue
                run = subprocess.run(
                    command["command"],
                    shell=True,
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                said = f"$ {command['command']}\n{run.stdout}\n{run.stderr}"
                assert run.returncode == int(command["code"] or 0), said
    assert ran > 15
    saved = pl.read_parquet(tmp_path / "bmi.parquet")
    assert saved.height == 500
    assert saved["obese"].any()


@contextmanager
def _up(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        f"exec env {command}",
        shell=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("running")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0

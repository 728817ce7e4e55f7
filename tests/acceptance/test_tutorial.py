"""docs/tutorial.md, followed word by word in an empty home folder.

A block that begins with the comment `# name.suffix` is a file. A `console` block is typed into the terminal
that its first line names: terminal 2 is a shell, in every other one the last command runs on. Each line below
a command must be in its output, in order; `...` stands for anything.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from techdeck_tasks.devservices.ports import free_port

from .conftest import clean_environment

REPOSITORY = Path(__file__).parents[2]
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
PORTS = ("8765", "8766")
SHELL = "2"
PATIENCE_S = 120.0
LOOKS = re.compile(r"techdeck (logs|doctor|list|audit list|dead list|breaker list)\b")
"""What changes nothing, and is asked again where what it should show is still on its way."""

_BLOCK = re.compile(r"^```(\w+)\n# (?:terminal (\d)|(\S+\.\w+))\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Terminal:
    """A process whose output is read as it comes."""

    process: subprocess.Popen[str]
    text: str = ""
    seen: int = 0
    _reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, pattern: re.Pattern[str]) -> str:
        """Return the output up to what `pattern` finds in what is new, and the find."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := pattern.search(self.text, self.seen)):
            assert time.monotonic() < deadline, f"not seen: {pattern.pattern}\n{self.text[self.seen :]}"
            assert self.process.poll() is None or self._reader.is_alive(), self.text
            self._reader.join(0.05)
        before, self.seen = self.text[self.seen : found.end()], found.end()
        return before

    def interrupt(self) -> None:
        """Press Ctrl-C, and wait for the end."""
        self.end(signal.SIGINT)

    def end(self, by: signal.Signals) -> None:
        """End what runs, and read the rest of what it says."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, by)
            self.process.wait(PATIENCE_S)
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@dataclass
class Desk:
    """The terminals of somebody who follows the tutorial."""

    home: Path
    environment: dict[str, str]
    terminals: dict[str, Terminal] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.home / "techdeck-tutorial"

    def type(self, number: str, lines: list[str]) -> None:
        """Type a block's commands, and look for what it shows."""
        for command, shown in _parts(lines):
            if number == SHELL:
                self._run(command, shown)
            elif command == "^C":
                self.terminals[number].interrupt()
                self._look(number, shown)
            elif command.startswith("export "):
                name, value = command.removeprefix("export ").split("=", 1)
                self.exported[name] = value.strip("'")
            else:
                if command:
                    self.terminals[number] = self._open(command)
                self._look(number, shown)

    def _open(self, command: str) -> Terminal:
        environment = {**self.environment, **self.exported}
        environment["PATH"] = f"{self.folder}/.venv/bin:{environment['PATH']}"
        return self._start(["bash", "-c", f"exec {command}"], self.folder, environment)

    @staticmethod
    def _start(arguments: list[str], cwd: Path, environment: dict[str, str]) -> Terminal:
        return Terminal(
            subprocess.Popen(
                arguments,
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )

    def _look(self, number: str, shown: list[str]) -> None:
        for line in shown:
            self.terminals[number].wait_for(_pattern(line))

    def _run(self, command: str, shown: list[str]) -> None:
        if SHELL not in self.terminals:
            self.terminals[SHELL] = self._start(["bash"], REPOSITORY, self.environment)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            output, code = self._ask(command)
            missing = _missing(output, shown)
            if code == 0 and missing is None:
                return
            late = not LOOKS.match(command) or time.monotonic() > deadline
            assert not late, f"$ {command}\nexit code {code}, not seen: {missing}\n{output}"

    def _ask(self, command: str) -> tuple[str, int]:
        shell = self.terminals[SHELL]
        assert shell.process.stdin is not None
        shell.process.stdin.write(f"{command}\nprintf '\\nended with %s\\n' $?\n")
        shell.process.stdin.flush()
        text = shell.wait_for(re.compile(r"\nended with \d+\n"))
        output, _, code = text.rpartition("\nended with ")
        return output, int(code)

    def close(self) -> None:
        """End what a failed test left running."""
        for terminal in reversed(self.terminals.values()):
            terminal.end(signal.SIGTERM)


def _parts(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Give each command with the lines shown below it; the first may be empty, for a terminal looked at."""
    command, shown = "", list[str]()
    for line in lines:
        if line.startswith("$ ") or line == "^C":
            if command or shown:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        else:
            shown.append(line)
    yield command, shown


def _pattern(line: str) -> re.Pattern[str]:
    words = (re.escape(part.strip()).replace(r"\ ", r"[\s│]+") for part in line.split("..."))
    return re.compile("[\\s\\S]*?".join(words))


def _missing(output: str, shown: list[str]) -> str | None:
    """Return the first line that the output does not have, in order."""
    position = 0
    for line in shown:
        found = _pattern(line).search(output, position)
        if found is None:
            return line
        position = found.end()
    return None


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A home folder with nothing in it, and a package index that nobody can ask."""
    environment = clean_environment(
        HOME=str(tmp_path),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # The dependencies are those of this suite; the package itself is built and installed.
        PYTHONPATH=sysconfig.get_path("purelib"),
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="false",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    environment.pop("VIRTUAL_ENV", None)
    (tmp_path / "techdeck-tutorial").mkdir()
    at_work = Desk(tmp_path, environment)
    try:
        yield at_work
    finally:
        at_work.close()


@pytest.mark.timeout(600)
def test_a_newcomer_who_does_what_the_tutorial_says_sees_what_it_shows(desk: Desk) -> None:
    text = TUTORIAL.read_text()
    for port in PORTS:
        text = text.replace(port, str(free_port()))
    blocks = _BLOCK.findall(text)
    assert len(blocks) == text.count("\n```") / 2, "a block is neither a file nor for a terminal"

    for _, terminal, name, content in blocks:
        if name:
            (desk.folder / name).write_text(content)
        else:
            desk.type(terminal, content.splitlines())

    assert {number for number, one in desk.terminals.items() if one.process.poll() is None} == {SHELL}
    assert desk.terminals["1"].process.returncode == 0

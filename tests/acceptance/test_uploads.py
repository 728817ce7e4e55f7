"""Files that come in by the command line, and runs that wait for a breaker."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

CONTENT = b"name,age\n" + b"Ada,36\n" * 2_000_000
DEFINITION = """
name: sent
source: nowhere.csv
stages:
  - {name: take, stage: file_upload}
"""


@pytest.fixture(scope="module")
def file(service: Any) -> Any:
    (service.folder / "sent.yaml").write_text(DEFINITION)
    path = service.folder / "people.csv"
    path.write_bytes(CONTENT)
    return path


def test_an_uploaded_file_is_the_source_of_a_run(service: Any, file: Any) -> None:
    sent = service.techdeck("upload", file.name)
    assert sent.returncode == 0, sent.stderr
    source = sent.stdout.strip()
    assert source.startswith("upload://")
    assert source.endswith("/people.csv")
    run = service.techdeck("run", "sent.yaml", "--source", source, "--json")
    assert run.returncode == 0, run.stderr
    [stage] = json.loads(run.stdout)["stages"]
    assert stage["report"]["sha256"] == sha256(CONTENT).hexdigest()
    local = service.techdeck("run", "sent.yaml", "--source", file.name, "--json")
    assert local.returncode == 0, local.stderr


def test_an_upload_that_broke_off_goes_on_where_it_was(service: Any, file: Any) -> None:
    from techdeck_tasks.runtime import create_app, runtime_of  # noqa: PLC0415 - of the service's settings

    runtime = runtime_of(create_app(service.settings))
    begun = runtime.uploads.begin("people.csv", len(CONTENT), sha256(CONTENT).hexdigest(), owner="me")
    first = CONTENT[: 8 << 20]
    runtime.uploads.put_chunk(begun.upload_id, 0, first, sha256(first).hexdigest())
    for _ in range(2):  # who does not know that it is over may go on again
        sent = service.techdeck("upload", file.name, "--resume", begun.upload_id, "--json")
        assert sent.returncode == 0, sent.stderr
        facts = json.loads(sent.stdout)
        assert (facts["upload_id"], facts["size_bytes"]) == (begun.upload_id, len(CONTENT))
        assert facts["source"]["url"] == f"upload://{begun.upload_id}/people.csv"
    (service.folder / "other.csv").write_bytes(b"name,age\nBob,1\n")
    other = service.techdeck("upload", "other.csv", "--resume", begun.upload_id)
    assert (other.returncode, "is of another file" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nosuch.csv",), "nosuch.csv cannot be read: No such file or directory"),
        ((".",), "cannot be read: Is a directory"),
        (("sent.yaml",), "the file name 'sent.yaml' is refused"),
        (("people.csv", "--resume", "zzz"), "an upload's id is 32 hex digits"),
        (("people.csv", "--resume", "0" * 32), "there is no such upload"),
    ],
)
def test_what_is_no_upload_is_refused(service: Any, file: Any, arguments: tuple[str, ...], said: str) -> None:
    assert file.is_file()
    refused = service.techdeck("upload", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_a_run_that_waits_for_a_breaker_says_for_which_and_until_when(service: Any, file: Any) -> None:
    opened = service.techdeck("breaker", "open", "file_upload", "--ttl", "0.2", "--reason", "moving")
    assert opened.returncode == 0, opened.stderr
    waiting = service.techdeck("run", "sent.yaml", "--source", file.name, "--detach").stdout.strip()
    assert "stage take is parked: breaker file_upload" in service.techdeck("status", waiting).stderr
    run = service.techdeck("run", "sent.yaml", "--source", file.name)
    assert run.returncode == 0, run.stderr
    assert "stage take is parked: breaker file_upload is forced-open until " in run.stderr
    assert "no worker has taken the run yet" not in run.stderr

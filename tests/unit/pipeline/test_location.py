from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from pydantic import TypeAdapter
from pydantic import ValidationError as ParamsError

from techdeck_tasks.errors import (
    AuthenticationError,
    AuthorizationError,
    ConnectionFailedError,
    RetryRule,
    ServiceUnavailableError,
    TechDeckError,
    ValidationError,
)
from techdeck_tasks.pipeline.data import data_url, folders, location

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import Web


def test_a_file_is_fetched_over_http(web: Web, tmp_path: Path) -> None:
    web.answers["/a.csv"] = (200, {}, b"a\n1\n")
    location.fetch(f"{web.url}/a.csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b"a\n1\n"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (403, AuthorizationError),
        (404, ValidationError),
        (410, ValidationError),
        (418, ValidationError),
        (429, ServiceUnavailableError),
        (500, ServiceUnavailableError),
        (503, ServiceUnavailableError),
    ],
)
def test_each_answer_of_a_server_has_its_error(
    web: Web, tmp_path: Path, status: int, kind: type[TechDeckError]
) -> None:
    web.answers["/a.csv"] = (status, {}, b"")
    with pytest.raises(TechDeckError) as caught:
        location.fetch(f"{web.url}/a.csv", tmp_path / "a.csv")
    assert type(caught.value) is kind
    assert (kind.retry_rule is RetryRule.ALWAYS) == (status in (429, 500, 503))


def test_the_moment_a_server_asks_for_is_kept(web: Web, tmp_path: Path) -> None:
    def retry_at(header: str) -> datetime | None:
        web.answers["/a.csv"] = (503, {"Retry-After": header}, b"")
        with pytest.raises(ServiceUnavailableError) as caught:
            location.fetch(f"{web.url}/a.csv", tmp_path / "a.csv")
        return caught.value.retry_at

    in_two_minutes = retry_at("120")
    assert in_two_minutes is not None
    assert timedelta(seconds=100) < in_two_minutes - datetime.now(UTC) <= timedelta(seconds=120)
    assert retry_at("Wed, 21 Oct 2099 07:28:00 GMT") == datetime(2099, 10, 21, 7, 28, tzinfo=UTC)
    assert retry_at("soon") is None
    assert retry_at("9" * 400) is None
    assert retry_at("-5") is None


def test_a_refused_connection_is_worth_a_retry(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionFailedError, match=f"127.0.0.1:{port}/a.csv failed"):
        location.fetch(f"http://127.0.0.1:{port}/a.csv", tmp_path / "a.csv")


def test_an_answer_that_breaks_off_is_worth_a_retry(web: Web, tmp_path: Path) -> None:
    web.answers["/a.csv"] = (200, {"Content-Length": "1000"}, b"a\n")
    with pytest.raises(ConnectionFailedError):
        location.fetch(f"{web.url}/a.csv", tmp_path / "a.csv")


def test_credentials_in_a_url_are_not_shown(tmp_path: Path) -> None:
    shown = data_url.display("https://ada:hunter22@host.example:8443/a.csv?token=abc")
    assert shown == "https://host.example:8443/a.csv"
    with pytest.raises(TechDeckError) as caught:
        location.fetch("http://ada:hunter22@127.0.0.1:1/a.csv", tmp_path / "a.csv")
    assert "hunter22" not in str(caught.value.to_dict())


def test_an_unknown_scheme_and_a_missing_driver_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"scheme of nosuch://host/a\.csv is unknown"):
        location.fetch("nosuch://host/a.csv", tmp_path / "a")
    with pytest.raises(ValidationError, match=r"the driver for oss://host/a\.csv is not installed"):
        location.fetch("oss://host/a.csv", tmp_path / "a")


def test_a_missing_local_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"there is no file .*none\.csv"):
        location.fetch(str(tmp_path / "none.csv"), tmp_path / "a")


def test_publishing_replaces_the_target_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out.csv"
    for content in ("old", "new"):
        source = location.staging_folder(str(target), tmp_path) / "draft"
        source.write_text(content)
        location.publish(source, f"file://{target}")
    assert [path.name for path in target.parent.iterdir()] == ["out.csv"]
    assert target.read_text() == "new"


def test_publishing_to_a_remote_store_leaves_only_the_target(tmp_path: Path) -> None:
    source = tmp_path / "draft"
    source.write_text("data")
    location.publish(source, "memory://bucket/deep/out.csv")
    files = fsspec.filesystem("memory")
    assert files.find("/bucket") == ["/bucket/deep/out.csv"]
    assert files.cat("/bucket/deep/out.csv") == b"data"
    assert not source.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValidationError, match="cannot be made"):
        folders.make_folder(tmp_path / "file" / "sub")
    with pytest.raises(ValidationError, match="cannot be made"):
        folders.make_folder(tmp_path / "file" / "sub", private=True)


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("a.csv", "csv"),
        ("A.CSV", "csv"),
        ("a.ndjson", "jsonl"),
        ("https://h/a.parquet?x=1.csv", "parquet"),
        ("file:///x/a.json", "json"),
        ("a.b", None),
        ("https://h/", None),
    ],
)
def test_the_suffix_tells_the_format(url: str, form: str | None) -> None:
    assert data_url.data_format(url) == form


def test_a_chain_of_urls_is_shown_without_the_secrets_of_any() -> None:
    url = "simplecache::https://ada:secret@example.org/a.csv?token=secret"
    assert data_url.display(url) == "simplecache::https://example.org/a.csv"


@pytest.mark.parametrize(
    "url", ["http://[::1/a.csv", "http://127.0.0.1:99999/a.csv", "zip://a::http://x:y/b"]
)
def test_a_url_whose_host_or_port_is_malformed_is_refused_with_the_definition(url: str) -> None:
    with pytest.raises(ParamsError, match="malformed"):
        TypeAdapter(data_url.DataUrl).validate_python(url)


def test_an_archive_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("no archive")
    with pytest.raises(ValidationError, match="cannot be opened"):
        location.fetch(f"zip://a.csv::file://{tmp_path}/a.zip", tmp_path / "a.csv")


def test_a_file_system_that_refuses_when_it_is_made_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionFailedError, match="ftp://127"):
        location.open_location(f"ftp://127.0.0.1:{port}/a.csv")


def test_a_folder_in_place_of_a_file_is_no_trouble_of_a_service(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(ValidationError, match="folder"):
        location.publish(tmp_path / "a.csv", str(tmp_path / "b.csv"))


@pytest.mark.parametrize("url", ["a\0.csv", "http://example.org/a\r\nHost: b", "a\x7f.csv"])
def test_a_url_with_control_characters_is_refused_with_the_definition(url: str) -> None:
    with pytest.raises(ParamsError, match="control characters"):
        TypeAdapter(data_url.DataUrl).validate_python(url)


def test_a_file_that_links_lead_to_in_a_loop_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "z.csv").symlink_to("a.csv")
    assert location.matches(str(tmp_path / "**" / "*.csv")) == [str(tmp_path / "a.csv")]


def test_a_folder_as_a_source_is_told_from_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"is a folder; name a file in it, or a pattern"):
        location.require_file(tmp_path)

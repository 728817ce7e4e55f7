"""Files that come in over HTTP: by chunks, resumed, checked; and what is refused of them."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from techdeck_tasks.web.api.uploads import CHUNK_TYPE

CONTENT = b"name,age\n" + b"Ada,36\nGrace,45\n" * 200_000
CHUNK = 1 << 20


def chunk_headers(offset: int, chunk: bytes, **other: str) -> dict[str, str]:
    digest = base64.b64encode(sha256(chunk).digest()).decode()
    return {
        "Upload-Offset": str(offset),
        "Upload-Checksum": f"sha256 {digest}",
        "Content-Type": CHUNK_TYPE,
        **other,
    }


@pytest.fixture
def sender(site: Any) -> Iterator[httpx.Client]:
    with site.client("submitter") as client:
        yield client


@pytest.fixture
def begin(sender: httpx.Client) -> Callable[..., str]:
    """Announces a file and returns the upload's path."""

    def begin(content: bytes = CONTENT, **other: Any) -> str:
        facts = {
            "filename": "people.csv",
            "size_bytes": len(content),
            "sha256": sha256(content).hexdigest(),
        }
        response = sender.post("/api/v1/uploads", json=facts | other)
        assert response.status_code == 201, response.text
        return response.headers["Location"]

    return begin


def send(client: httpx.Client, path: str, content: bytes, offset: int = 0) -> None:
    while offset < len(content):
        chunk = content[offset : offset + CHUNK]
        answer = client.patch(path, content=chunk, headers=chunk_headers(offset, chunk))
        assert answer.status_code == 204, answer.text
        offset = int(answer.headers["Upload-Offset"])


def test_a_file_comes_in_by_chunks_and_is_resumed_where_it_broke_off(
    site: Any, sender: httpx.Client, begin: Callable[..., str]
) -> None:
    path = begin()
    send(sender, path, CONTENT[: 2 * CHUNK])
    measured = sender.head(path)
    assert (measured.status_code, measured.content) == (200, b"")
    assert measured.headers["Upload-Length"] == str(len(CONTENT))
    offset = int(measured.headers["Upload-Offset"])
    assert offset == 2 * CHUNK
    assert sender.post(f"{path}/complete").json()["error_code"] == "FILE_UPLOAD_ERROR"
    send(sender, path, CONTENT, offset)
    done = sender.post(f"{path}/complete").json()
    assert (done["state"], done["received_bytes"]) == ("accepted", len(CONTENT))
    # Who lost the answer may ask again.
    assert sender.post(f"{path}/complete").json() == done == sender.get(path).json()
    assert site.runtime.uploads.accepted_at(done["source"]["url"]).path.read_bytes() == CONTENT
    begun = [document for document in site.audited("upload.begin") if document["filename"] == "people.csv"]
    assert (begun[0]["owner"], begun[0]["size_bytes"]) == ("submitter", len(CONTENT))
    assert site.audited("upload.complete")


def test_a_chunk_too_far_on_is_told_where_to_go_on(sender: httpx.Client, begin: Callable[..., str]) -> None:
    path = begin()
    send(sender, path, CONTENT[:10])
    answer = sender.patch(path, content=b"x", headers=chunk_headers(500, b"x"))
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "10")
    again = sender.patch(path, content=CONTENT[:10], headers=chunk_headers(0, CONTENT[:10]))
    assert (again.status_code, again.headers["Upload-Offset"]) == (204, "10")


def test_a_damaged_chunk_is_refused_and_the_upload_goes_on(
    sender: httpx.Client, begin: Callable[..., str]
) -> None:
    path = begin()
    answer = sender.patch(path, content=b"nbme", headers=chunk_headers(0, b"name"))
    assert (answer.status_code, answer.json()["error_code"]) == (413, "FILE_UPLOAD_ERROR")
    send(sender, path, CONTENT[:CHUNK])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/csv"}, 415),
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": "1e3"}, 400),
        ({"Upload-Offset": "9" * 4000}, 409),
        ({"Upload-Offset": "9" * 5000}, 400),
        ({"Upload-Checksum": "md5 AAAA"}, 400),
        ({"Upload-Checksum": "sha256 " + "!" * 44}, 400),
    ],
)
def test_a_chunk_with_wrong_headers_is_refused(
    sender: httpx.Client, begin: Callable[..., str], headers: dict[str, str], status: int
) -> None:
    answer = sender.patch(begin(), content=b"name", headers=chunk_headers(0, b"name", **headers))
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd.csv",
        "/etc/passwd",
        "..\\people.csv",
        "a%2f..%2fb.csv",
        "people.csv\x00.exe",
        "people.csv\r\nX-Evil: 1",
        "run.sh",
        "people.html",
        "",
        "\u202evsc.elpoep",
        "x" * 300 + ".csv",
        "x" * 2000,
    ],
)
def test_a_name_that_is_no_plain_name_is_refused(site: Any, sender: httpx.Client, name: str) -> None:
    answer = sender.post("/api/v1/uploads", json={"filename": name, "size_bytes": 10, "sha256": "0" * 64})
    assert answer.status_code in (400, 413)
    assert answer.json()["error_code"] in ("FILE_UPLOAD_ERROR", "VALIDATION_ERROR")
    assert "X-Evil" not in answer.headers
    folder = site.runtime.settings.upload_dir
    assert not list(folder.parent.glob("*passwd*"))


@pytest.mark.parametrize("size", [0, -1, 30_000_001, 10**30])
def test_a_size_beyond_the_limits_is_refused(sender: httpx.Client, size: int) -> None:
    facts = {"filename": "a.csv", "size_bytes": size, "sha256": "0" * 64}
    answer = sender.post("/api/v1/uploads", json=facts)
    assert (answer.status_code, answer.json()["error_code"]) == (413, "FILE_UPLOAD_ERROR")


@pytest.mark.parametrize(
    "upload_id", ["0" * 32, "..%2f..%2fready", "%2e%2e", "0" * 31, "A" * 32, "0" * 31 + "%00"]
)
def test_what_is_no_upload_is_not_found(sender: httpx.Client, upload_id: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        assert sender.request(method, f"/api/v1/uploads/{upload_id}").status_code in (400, 404, 405)


def test_an_upload_is_its_owners_alone(site: Any, sender: httpx.Client, begin: Callable[..., str]) -> None:
    path = begin(b"name\nAda\n")
    with site.client("operator") as other:
        chunk = b"name\nEve\n"
        assert other.patch(path, content=chunk, headers=chunk_headers(0, chunk)).status_code == 404
        assert [other.get(path).status_code, other.delete(path).status_code] == [404, 404]
        assert other.post(f"{path}/complete").status_code == 404
    send(sender, path, b"name\nAda\n")
    assert sender.post(f"{path}/complete").status_code == 200
    with site.client("operator") as other:
        assert [other.get(path).status_code, other.delete(path).status_code] == [404, 404]
    assert sender.delete(path).status_code == 204
    assert sender.get(path).status_code == 404


@pytest.mark.parametrize("path", ["runs", "schedules"])
def test_an_upload_is_no_source_for_others(
    site: Any, sender: httpx.Client, begin: Callable[..., str], path: str
) -> None:
    upload = begin(b"name\nAda\n")
    send(sender, upload, b"name\nAda\n")
    source = sender.post(f"{upload}/complete").json()["source"]
    definition = {"name": "taken", "source": source, "stages": [{"name": "take", "stage": "file_upload"}]}
    body = (
        {"definition": definition | {"schedule": "0 6 * * *"}, "reason": "x"}
        if path == "schedules"
        else definition
    )
    with site.client("operator") as other:
        answer = other.post(f"/api/v1/{path}", json=body)
        assert (answer.status_code, answer.json()["error_code"]) == (413, "FILE_UPLOAD_ERROR")
        assert other.get(f"/api/v1/{path}").json()[path] == []
    assert sender.post(f"/api/v1/{path}", json=body).is_success


def test_a_content_that_is_not_what_the_name_says_goes_to_quarantine(
    site: Any, sender: httpx.Client, begin: Callable[..., str]
) -> None:
    content = b"MZ\x90\x00" + bytes(500)
    path = begin(content, filename="people.parquet")
    send(sender, path, content)
    answer = sender.post(f"{path}/complete")
    assert (answer.status_code, answer.json()["error_code"]) == (413, "FILE_UPLOAD_ERROR")
    assert (site.runtime.settings.upload_dir / "quarantine" / path.rpartition("/")[2]).is_dir()


def test_another_content_than_announced_is_not_accepted(
    sender: httpx.Client, begin: Callable[..., str]
) -> None:
    path = begin(b"name\nAda\n")
    send(sender, path, b"name\nEve\n")
    assert sender.post(f"{path}/complete").status_code == 413
    assert sender.get(path).status_code == 404


@contextmanager
def raw(site: Any, head: str) -> Iterator[socket.socket]:
    parts = urlsplit(site.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=15) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        yield connection


def patch_head(path: str, secret: str, length: int) -> str:
    headers = {
        **chunk_headers(0, b"name"),
        "Content-Length": str(length),
        "Authorization": f"Bearer {secret}",
    }
    lines = "".join(f"{name}: {value}\n" for name, value in headers.items())
    return f"PATCH {path} HTTP/1.1\nHost: x\n{lines}\n"


def test_a_chunk_too_large_is_refused_before_it_is_sent(site: Any, begin: Callable[..., str]) -> None:
    with raw(site, patch_head(begin(), site.secrets["submitter"], (8 << 20) + 1)) as connection:
        assert connection.recv(100).split()[1] == b"413"


def test_who_may_not_send_is_refused_before_a_byte_is_read(site: Any, begin: Callable[..., str]) -> None:
    path = begin()
    for secret, status in (("td_wrong", b"401"), (site.secrets["auditor"], b"403")):
        with raw(site, patch_head(path, secret, 8 << 20)) as connection:
            assert connection.recv(100).split()[1] == status
    site.runtime.redis.delete("td:web:rate:{web}:refused:127.0.0.1")


def test_a_sender_that_trickles_is_cut_off_and_may_go_on(
    site: Any, sender: httpx.Client, begin: Callable[..., str]
) -> None:
    path = begin()
    began = time.monotonic()
    with raw(site, patch_head(path, site.secrets["submitter"], 1000)) as connection:
        connection.sendall(b"name")
        assert connection.recv(100).split()[1] == b"408"
    assert time.monotonic() - began < 3 * site.runtime.settings.web_timeout_seconds
    assert sender.get(path).json()["received_bytes"] == 0
    send(sender, path, CONTENT[:CHUNK])


def test_two_senders_of_one_upload_do_no_harm(
    sender: httpx.Client, site: Any, begin: Callable[..., str]
) -> None:
    path = begin()

    def sending() -> None:
        with site.client("submitter") as client:
            send(client, path, CONTENT)

    threads = [threading.Thread(target=sending) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sender.post(f"{path}/complete").json()["state"] == "accepted"


def test_a_submitter_has_so_many_open_uploads_finds_them_and_makes_room(site: Any) -> None:
    facts = {"filename": "people.csv", "size_bytes": 10, "sha256": "0" * 64}
    with site.client("operator") as client, site.client("submitter") as other:
        while (answer := client.post("/api/v1/uploads", json=facts)).status_code == 201:
            pass
        assert (answer.status_code, answer.json()["error_code"]) == (429, "RATE_LIMIT_ERROR")
        assert "operator has 40 open uploads, and may have 40" in answer.json()["message"]
        mine = [each["upload_id"] for each in client.get("/api/v1/uploads").json()["uploads"]]
        assert len(mine) == 40
        assert not {each["upload_id"] for each in other.get("/api/v1/uploads").json()["uploads"]} & set(mine)
        for upload_id in mine:
            assert client.delete(f"/api/v1/uploads/{upload_id}").status_code == 204
        assert client.get("/api/v1/uploads").json() == {"uploads": []}

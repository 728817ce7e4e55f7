"""Which URLs name a Redis, and what a malformed one may tell."""

from __future__ import annotations

import pytest

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@host",
        "redis+sentinel://:hunter2@host:26379",
        "redis+sentinel://:hunter2@host:26379/lab/zero",
        "redis+sentinel://:hunter2@host:99999/lab",
        "redis+sentinel://:hunter2@,host:1/lab",
        "redis+cluster://:hunter2@host:port",
        "redis://:hunter2@host/zero",
        "redis://host/0?hunter2=1",
        "rediss://:hunter2@host/0?ssl_cert_reqs=bogus",
    ],
)
def test_a_malformed_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="TECHDECK_REDIS_URL is malformed") as caught:
        connect_redis(Settings(redis_url=url))
    assert "hunter2" not in str(caught.value.to_dict())


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:pa%40ss@127.0.0.1:6390/2",
        "rediss://127.0.0.1:6390/2",
        "unix:///tmp/redis.sock?db=2",
        "redis+sentinel://user:pa%40ss@127.0.0.1:26379,[::1]:26380/lab/2?sentinel_password=x",
        "rediss+sentinel://127.0.0.1/lab/2?ssl_ca_certs=/ca.pem",
    ],
)
def test_a_client_is_made_without_connecting_and_bounds_every_call(url: str) -> None:
    client = connect_redis(Settings(redis_url=url, redis_timeout_seconds=0.2))
    options = client.get_connection_kwargs()
    assert options["socket_timeout"] == 0.2
    assert options["socket_connect_timeout"] == 0.2
    assert options["retry"] is None
    assert options["db"] == 2
    if "pa%40ss" in url:
        assert options["password"] == "pa@ss"

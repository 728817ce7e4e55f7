"""Redis clients that answer in bounded time, and the scripts that run inside Redis.

Four kinds of URL name a Redis; the password is percent-encoded in each:

======================================================================  =================================
``redis://[user][:password]@host:6379/0``, ``rediss://...`` (TLS)       one server; redis-py's own options
``unix://[user][:password]@/path/redis.sock?db=0``                      one server on this machine
``redis+sentinel://[user][:password]@host:26379,host:26379/NAME/0``     the master that Sentinel calls NAME
``redis+cluster://[user][:password]@host:7000,host:7001``               a cluster, found through any node
======================================================================  =================================

``rediss+sentinel`` and ``rediss+cluster`` speak TLS. Their query may name ``ssl_ca_certs``, ``ssl_certfile``
and ``ssl_keyfile`` (paths), and for Sentinel ``sentinel_username`` and ``sentinel_password``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from techdeck_tasks.errors import ServiceUnavailableError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from techdeck_tasks.settings import Settings

RedisClient = Redis | RedisCluster

REDIS_FAILURES: tuple[type[Exception], ...] = (RedisError, RedisClusterException, OSError)
"""What a client raises when Redis is away, refuses, or is being failed over."""

_SENTINEL = ("redis+sentinel", "rediss+sentinel")
_CLUSTER = ("redis+cluster", "rediss+cluster")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SENTINEL_PORT = 26379
_REDIS_PORT = 6379


def connect_redis(settings: Settings) -> Redis:
    """Return a client of ``settings.redis_url`` whose every call ends within ``redis_timeout_seconds``.

    The client connects when it is first used, may be shared by threads, and may be used after a fork: its
    pool drops the parent's connections. redis-py's ten retries are switched off (0.5 s would become 9 s):
    whoever calls decides what to do without Redis. Replies are bytes.

    A cluster is the exception: its client asks a node for the slots at once. It is typed as `Redis`, whose
    commands it has.

    Raises:
        ValidationError: the URL is malformed; the text never holds the URL.
        ServiceUnavailableError: no node of the cluster answers.
    """
    url = settings.redis_url.get_secret_value()
    bounds: dict[str, Any] = {
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
    }
    scheme = urlsplit(url).scheme
    if scheme in _SENTINEL:
        return _connect_sentinel(_Address.parse(url, _SENTINEL_PORT), bounds)
    if scheme in _CLUSTER:
        return cast("Redis", _connect_cluster(_Address.parse(url, _REDIS_PORT), bounds))
    try:
        client = Redis.from_url(url, retry=None, **bounds)
    except ValueError:
        raise _malformed(
            "use redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://, ports 1 to 65535"
        ) from None
    database = urlsplit(url).path.strip("/")
    if scheme != "unix" and database and not database.isdecimal():  # redis-py would take database 0
        raise _malformed("what follows the host is the database's number")
    try:
        client.connection_pool.make_connection()  # connects nowhere, but looks at the options
    except (TypeError, ValueError, RedisError):
        raise _malformed("an option behind ? is none of redis-py's, or its value cannot be") from None
    return client


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script that Redis runs atomically, sent by its digest.

    Attributes:
        source: the Lua text.
        sha1: its digest, by which Redis caches it.
    """

    source: str
    sha1: str

    @classmethod
    def load(cls, package: str, *names: str) -> Self:
        """Return the script made of the files `names` of `package`, joined in that order."""
        folder = files(package)
        source = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    def __call__(
        self, client: RedisClient, keys: Sequence[str], args: Sequence[str | bytes | int | float]
    ) -> Any:
        """Run the script: one round trip, or two where Redis has lost it (SCRIPT FLUSH, restart, failover).

        Args:
            client: where to run it.
            keys: every key it touches, all in one cluster slot.
            args: its arguments.

        Raises:
            RedisError: Redis is away or the script failed.
        """
        try:
            return client.evalsha(self.sha1, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.source, len(keys), *keys, *args)


@dataclass(frozen=True, slots=True)
class _Address:
    """A URL that names several nodes."""

    nodes: tuple[tuple[str, int], ...]
    path: tuple[str, ...]
    credentials: dict[str, Any]
    tls: dict[str, Any]
    options: dict[str, str]

    @classmethod
    def parse(cls, url: str, default_port: int) -> Self:
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        credentials = {"username": unquote(username), "password": unquote(password)}
        options = dict(parse_qsl(parts.query))
        tls: dict[str, Any] = {"ssl": True} if parts.scheme.startswith("rediss") else {}
        tls |= {name: options.pop(name) for name in _TLS_OPTIONS if name in options}
        return cls(
            nodes=tuple(_node(host, default_port) for host in hosts.split(",")),
            path=tuple(unquote(part) for part in parts.path.split("/") if part),
            credentials={name: value for name, value in credentials.items() if value},
            tls=tls,
            options=options,
        )


def _connect_sentinel(address: _Address, bounds: dict[str, Any]) -> Redis:
    if not address.path:
        raise _malformed("a redis+sentinel URL ends in /NAME or /NAME/DB, NAME being the master's")
    name, *rest = address.path
    database = rest[0] if rest else "0"
    if not database.isdecimal():
        raise _malformed("the database after the master's name must be a number")
    logins = {
        key: address.options[f"sentinel_{key}"]
        for key in ("username", "password")
        if f"sentinel_{key}" in address.options
    }
    sentinel = Sentinel(
        list(address.nodes),
        sentinel_kwargs={"retry": None, **bounds, **address.tls, **logins},
        retry=None,
        db=int(database),
        **bounds,
        **address.tls,
        **address.credentials,
    )
    client: Redis = sentinel.master_for(name)
    return client


def _connect_cluster(address: _Address, bounds: dict[str, Any]) -> RedisCluster:
    try:
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
            # One attempt: a MOVED is followed, an outage is reported.
            retry=Retry(NoBackoff(), 1),
            **bounds,
            **address.tls,
            **address.credentials,
        )
    except REDIS_FAILURES as error:
        raise ServiceUnavailableError(
            f"none of the {len(address.nodes)} cluster nodes of TECHDECK_REDIS_URL answered "
            f"({type(error).__name__})",
            service_name="redis",
        ) from None


def _node(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise _malformed("each node is host:port with a port from 1 to 65535, nodes separated by commas")
    return host, int(port)


def _malformed(remedy: str) -> ValidationError:
    return ValidationError(
        f"TECHDECK_REDIS_URL is malformed: {remedy}", field="redis_url", validation_rule="url"
    )

"""What every connection to PostgreSQL has."""

from __future__ import annotations

import os
import socket

import pytest
from sqlalchemy import Engine, make_url

from techdeck_tasks.audit.writing.bulk import driver_of
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database


@pytest.fixture
def engine(database_url: str) -> Engine:
    # Over TCP, wherever the server listens besides.
    return connect_database(load_settings(database_url=database_url))


def _options(engine: Engine) -> tuple[int, int, int]:
    with engine.connect() as connection:
        descriptor = os.dup(driver_of(connection).fileno())
    engine.dispose()
    with socket.socket(fileno=descriptor) as sock:
        idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        unanswered = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), idle, unanswered


def test_a_server_whose_machine_is_gone_is_noticed_within_a_minute(engine: Engine) -> None:
    assert _options(engine) == (1, 30, 60_000)


def test_what_the_url_says_of_dead_servers_wins(database_url: str) -> None:
    url = make_url(database_url).update_query_dict({"keepalives_idle": "5"})
    named = load_settings(database_url=url.render_as_string(hide_password=False))
    assert _options(connect_database(named)) == (1, 5, 60_000)

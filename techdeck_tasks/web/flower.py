"""Flower, without keys and with a password on everything.

Flower only ever sees what workers send as events, and those are masked: names, states, run times, error codes
and retries show, arguments and results do not. It holds no message key, so it could decrypt nothing else.
"""

from __future__ import annotations

import tornado.web
from celery import Celery
from flower.app import Flower
from flower.options import options
from flower.urls import settings as flower_settings
from flower.views.monitor import Healthcheck, Metrics

from techdeck_tasks.settings import Settings, SettingsError
from techdeck_tasks.tasks.messaging import take_plain_commands


class GuardedMetrics(Metrics):  # type: ignore[misc]  # flower ships no types
    """Flower's metrics, which it would show to anybody."""

    get = tornado.web.authenticated(Metrics.get)


class GuardedHealthcheck(Healthcheck):  # type: ignore[misc]  # flower ships no types
    """Flower's health check, behind the same password."""

    get = tornado.web.authenticated(Healthcheck.get)


def monitoring_app(settings: Settings) -> Celery:
    """Return a Celery app that can watch workers and open nothing."""
    app = Celery("techdeck-monitor", broker=settings.effective_broker_url.get_secret_value())
    app.conf.update(
        accept_content=["json"],
        event_serializer="json",
        broker_connection_retry_on_startup=True,
    )
    take_plain_commands(app)
    return app


def make_flower(settings: Settings, *, address: str, port: int) -> Flower:
    """Return a Flower server that is not started yet.

    Args:
        settings: the broker and the login.
        address: where to listen.
        port: where to listen; 0 for a free one.

    Raises:
        SettingsError: there is no login.
    """
    login = settings.flower_basic_auth
    if login is None or ":" not in login.get_secret_value():
        raise SettingsError(
            "Flower does not start without a login: set TECHDECK_FLOWER_BASIC_AUTH to user:password"
        )
    options.address = address
    options.port = port
    options.basic_auth = [login.get_secret_value()]
    options.read_only = True
    server = Flower(capp=monitoring_app(settings), options=options, **flower_settings)
    # Rules added later are tried before Flower's own.
    server.add_handlers(r".*", [(r"/metrics", GuardedMetrics), (r"/healthcheck", GuardedHealthcheck)])
    return server


def serve(settings: Settings, *, address: str, port: int) -> None:
    """Run Flower until it is interrupted.

    Raises:
        SettingsError: there is no login.
    """
    server = make_flower(settings, address=address, port=port)
    server.start_http_server()
    try:
        server.start()
    finally:
        server.stop()

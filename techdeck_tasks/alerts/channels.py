"""Channels that people read, each an `apprise` URL: mail, chat, pager, webhook.

A URL holds a password more often than not: it is kept as a secret, and a channel is called by its place in
the settings and its kind, such as ``primary-1 (mailtos)``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import SecretStr

from techdeck_tasks.alerts.condition import Severity
from techdeck_tasks.errors import ValidationError

_KIND = re.compile(r"([a-z0-9+]{1,20})://", re.IGNORECASE)


class Channel(Protocol):
    """Where notices go."""

    @property
    def name(self) -> str:
        """What it is called in tables, logs and the audit log."""

    def send(self, title: str, body: str, severity: Severity) -> str | None:
        """Deliver within a bounded time; return None where it was accepted, else why not. Never raises."""

    def check(self) -> None:
        """Raise ValidationError where it can never be used."""


@dataclass(frozen=True, slots=True)
class AppriseChannel:
    """A channel behind an `apprise` URL. `timeout_s` bounds one delivery."""

    name: str
    url: SecretStr
    timeout_s: float

    def send(self, title: str, body: str, severity: Severity) -> str | None:
        """Deliver; return None where it was accepted, else why not. Never raises."""
        kind = "failure" if severity is Severity.CRITICAL else "warning"
        try:
            result = self._service().notify(title=title, body=body, notify_type=kind, timeout=self.timeout_s)
        except Exception as failure:  # noqa: BLE001 - a hundred kinds of channels raise as they like
            # Its text may quote the URL.
            return type(failure).__name__
        return None if result else f"not accepted ({result.status.name.lower()})"

    def check(self) -> None:
        """Make sure that there is such a kind of channel, and nothing is missing from the URL.

        Raises:
            ValidationError: the URL cannot be used.
        """
        if not len(self._service()):
            raise ValidationError(
                f"the alert channel {self.name} has no URL that apprise knows; see docs/alerts.md",
                field="alert_channels",
            )

    def _service(self) -> Any:
        # Here and not above: it looks through more than a hundred kinds of channels, and few processes send.
        import apprise  # noqa: PLC0415

        # It would log hosts and recipients.
        logging.getLogger("apprise").disabled = True
        asset = apprise.AppriseAsset(app_id="techdeck", app_desc="techdeck alerts", storage_mode="memory")
        service = apprise.Apprise(asset=asset)
        plugin = apprise.Apprise.instantiate(self.url.get_secret_value(), asset=asset)
        if plugin is not None:
            plugin.socket_connect_timeout = plugin.socket_read_timeout = self.timeout_s / 2
            service.add(plugin)
        return service


@dataclass(frozen=True, slots=True)
class Channels:
    """Who hears of an alert first, and who where nobody reacts."""

    primary: tuple[Channel, ...] = ()
    escalation: tuple[Channel, ...] = ()

    def check(self) -> None:
        """Make sure that each can be used.

        Raises:
            ValidationError: one cannot; the text names its place in the settings, never its URL.
        """
        for channel in self.by_name.values():
            channel.check()

    @property
    def by_name(self) -> Mapping[str, Channel]:
        """Every channel."""
        return {channel.name: channel for channel in (*self.primary, *self.escalation)}


def open_channels(
    primary: Iterable[SecretStr], escalation: Iterable[SecretStr], timeout_s: float
) -> Channels:
    """Return the channels behind the URLs; nothing connects yet."""

    def opened(group: str, urls: Iterable[SecretStr]) -> tuple[AppriseChannel, ...]:
        return tuple(
            AppriseChannel(_name(group, place, url), url, timeout_s) for place, url in enumerate(urls, 1)
        )

    return Channels(opened("primary", primary), opened("escalation", escalation))


def _name(group: str, place: int, url: SecretStr) -> str:
    kind = _KIND.match(url.get_secret_value())
    return f"{group}-{place} ({kind[1].lower() if kind else 'no URL'})"

"""Addresses of machines: IP and MAC. Local ones are operational and stay."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching

# Loopback, private (RFC 1918, 4193), shared (RFC 6598), link-local, multicast and unspecified, and netmasks.
_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.168.0.0/16", "224.0.0.0/4", "255.0.0.0/8", "::/128", "::1/128", "fc00::/7", "fe80::/10",
        "ff00::/8",
    )
)  # fmt: skip
_IPV6 = re.compile(
    r"""(?<![0-9A-Fa-f:.]) (?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:])
    [0-9A-Fa-f:]{3,45}+ [0-9.]{0,15}+ (?![0-9A-Za-z_])""",
    re.VERBOSE,
)
_COLONS_IN_FULL_IPV6 = 7
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-])(?<![\w:-]...)[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
_SEPARATORS_IN_MAC = 5
# Begins at the first dot, which is rare, and looks back from there.
_CISCO_MAC = re.compile(r"\.(?<=[0-9A-Fa-f]{4}\.)(?<![\w.].{5})[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w.])")
_CHARS_BEFORE_DOT = 4


def is_public_address(value: str) -> bool:
    """Tell whether `value` is an IP address outside the local networks."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return not any(address in network for network in _LOCAL_NETWORKS)


def _find_ipv6(subject: Subject) -> Iterator[Span]:
    """Yield each public IPv6 address, also one glued to a word."""
    text = subject.text
    if "::" not in text and text.count(":") < _COLONS_IN_FULL_IPV6:
        return
    for match in _IPV6.finditer(text):
        address = match[0].rstrip(".")
        if address.endswith(":") and not address.endswith("::"):
            address = address[:-1]
        # Without a digit it is a name in C++ or Rust: "dead::beef".
        if any(map(str.isdigit, address)) and is_public_address(address):
            yield match.start(), match.start() + len(address)


def _find_mac(subject: Subject) -> Iterator[Span]:
    """Yield each MAC address, in the usual and in Cisco's notation."""
    text = subject.text
    if text.count(":") >= _SEPARATORS_IN_MAC or text.count("-") >= _SEPARATORS_IN_MAC:
        yield from (match.span() for match in _MAC.finditer(text))
    yield from ((match.start() - _CHARS_BEFORE_DOT, match.end()) for match in _CISCO_MAC.finditer(text))


NETWORK_RULES: tuple[Rule, ...] = (
    Rule(
        name="ipv4",
        reason="Internet addresses, 164.514(b)(2)(i)(O).",
        find=matching(
            r"\d(?<![\w.].)(?<![A-Za-z]/.)(?<!ersion\ .)\d{0,2}+(?:\.\d{1,3}+){3}(?![\w]|\.\d)",
            is_public_address,
        ),
        digits=3,
        leaks=("refused by «203.0.113.9»:443", "asked «8.8.8.8»"),
        benign=("connecting to 127.0.0.1:5432", "peer 192.168.1.7", "version 8.30.11.2", "nginx/1.25.3.1"),
    ),
    Rule(
        name="ipv6",
        reason="Internet addresses, 164.514(b)(2)(i)(O).",
        find=_find_ipv6,
        hints=(":",),
        digits=1,
        leaks=("bound to [«2001:db8:77::5»]:80",),
        benign=("listening on ::1", "at 10:00:00", "fe80::1", "select x::text", "std::vector"),
    ),
    Rule(
        name="mac-address",
        reason="Device identifiers, 164.514(b)(2)(i)(M).",
        find=_find_mac,
        digits=1,
        leaks=("device «3C:5A:B4:10:9E:07»", "on «3c5a.b410.9e07» up"),
        benign=("at 01:23:45", "peer 10.8.8.8"),
    ),
)

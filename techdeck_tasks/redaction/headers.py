"""Credentials in HTTP headers, wherever a header is printed: dicts, curl commands, wire logs, prose."""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import shapes
from techdeck_tasks.redaction.quoting import end_of_line, end_of_quote
from techdeck_tasks.redaction.rule import REDACTED, Rule, Span, Subject, matching

_QUOTE = r"""\\{0,32}["'`]"""
_SCHEMES = (
    r"bearer|basic|digest|negotiate|ntlm|kerberos|token|api-?key|api-?token|oauth|hawk|aws4-hmac-sha256|aws|ssws|jwt"
    r"|key|googlelogin|sharedkey(?:lite)?|sharedaccesssignature|hmac|signature|mac|dpop|gssapi|scram-sha-256|vapid"
    r"|genie-?key|genie|bot|pve-?api-?token|private-token|sso-key|klaviyo-api-key|splunk|user|secret|hoba|mutual"
    r"|x-\w{1,20}"
)
_AUTHORIZATION = re.compile(
    rf"""(?<![a-z]) (?:proxy-|x-)?authorization (?:{_QUOTE})? \]? \s{{0,8}}
    (?: [:=] | => | %3a | ,(?=\s{{0,4}}\\{{0,8}}b?["']) )
    [ \t]{{0,8}}+ (?:b?(?P<quote>{_QUOTE}))? (?:(?P<scheme>{_SCHEMES})(?:[ \t+]|%20){{1,4}})?""",
    re.VERBOSE,
)
_COOKIE = re.compile(
    rf"""(?<![a-z]) (?:set-)?cookies?2? (?:{_QUOTE})? \]? \s{{0,8}} (?: [:=] | => | %3a )
    [ \t]{{0,8}}+ (?:b?(?P<quote>{_QUOTE}))?""",
    re.VERBOSE,
)
_PARAMETER = re.compile(r"[\w-]{1,40}=")
_VALUE = re.compile(r"[^\s\"'`,;<>()\[\]{}\\&]+")
_JUDGED_CHARS = 256


def _find_authorization(subject: Subject) -> Iterator[Span]:
    """Yield the credentials of each Authorization header: the rest of its value, or its one token."""
    text, done = subject.text, 0
    for match in _AUTHORIZATION.finditer(subject.folded):
        start = match.end()
        if start < done or text.startswith(REDACTED, start):
            continue
        done = _credentials_end(text, match)
        if done > start and not shapes.is_prose(text[start : min(done, start + _JUDGED_CHARS)]):
            yield start, done


def _credentials_end(text: str, header: re.Match[str]) -> int:
    start = header.end()
    if header["quote"]:
        return end_of_quote(text, start, text[header.start("quote") : header.end("quote")], len(text))
    if header["scheme"] and _PARAMETER.match(text, start):
        # Unquoted lists (Digest, AWS4): up to the line's end, or to the quote around the whole header.
        line = end_of_line(text, start, len(text))
        around = text[header.start() - 1 : header.start()]
        quoted = text.rfind(around, start, line) if around in {'"', "'"} else -1
        return line if quoted < 0 else quoted
    match = _VALUE.match(text, start)
    value = match[0] if match else ""
    if not header["scheme"] and (shapes.is_plain_word(value.rstrip(".")) or ":" in value):
        return start  # "authorization: denied for this user"
    return start + len(value)


def _find_cookies(subject: Subject) -> Iterator[Span]:
    """Yield the content of each Cookie and Set-Cookie header that holds a name and a value."""
    text, done = subject.text, 0
    for match in _COOKIE.finditer(subject.folded):
        start = match.end()
        if start < done or text.startswith(REDACTED, start):
            continue
        if match["quote"]:
            done = end_of_quote(text, start, text[match.start("quote") : match.end("quote")], len(text))
        else:
            done = end_of_line(text, start, len(text))
        part = text[start : min(done, start + _JUDGED_CHARS)]
        if "=" in part or shapes.looks_assigned(part):
            yield start, done


def _is_credential(value: str) -> bool:
    """Tell "Bearer abc-123" from "Bearer token missing"."""
    word = value.rstrip(".,:;")
    return not (shapes.is_plain_word(word) or shapes.is_state(word) or shapes.is_trivial(word))


HEADER_RULES: tuple[Rule, ...] = (
    Rule(
        name="authorization-header",
        reason="Authorization carries the credential itself, in any scheme.",
        find=_find_authorization,
        words=("authorization",),
        leaks=(
            "curl -H 'Authorization: Basic «dXNlcjpwYXNz»' https://api.test",
            "headers={'Authorization': 'Bearer «abc»', 'Accept': '*/*'}",
            'Authorization: Digest «username="mia", realm="x", response="6629fae49393a05397450978507c4ef1"»',
            "Authorization: Negotiate «YIIabc123»",
            "Authorization:«raw-value-1»",
        ),
        benign=(
            "authorization: denied for user 7",
            "missing Authorization header",
            "authorization failed: retry",
        ),
    ),
    Rule(
        name="bearer-value",
        reason="A bearer token is a credential wherever it is printed.",
        find=matching(
            r"(?i:\bbearer) (?:[ \t]|%20|\+){1,4} (?P<secret> [A-Za-z0-9._~+/=%|:@-]{6,}+)", _is_credential
        ),
        words=("bearer",),
        leaks=("sent Bearer «abc-def-012» twice",),
        benign=("Bearer token missing", "bearer authentication is required"),
    ),
    Rule(
        name="basic-value",
        reason="Basic credentials are user and password in base64.",
        find=matching(
            r"\b[Bb]asic[ ](?P<secret>[A-Za-z0-9+/]{6,}+={0,2})",
            lambda value: _is_credential(value) or value.endswith("="),
        ),
        words=("basic",),
        leaks=("challenge answered with Basic «dXNlcjpwYXNz»",),
        benign=("Basic authentication failed", "basic auth"),
    ),
    Rule(
        name="cookie-header",
        reason="Cookies hold sessions.",
        find=_find_cookies,
        words=("cookie", "cookies"),
        leaks=("Cookie: «sid=abc; theme=dark»", "{'Set-Cookie': '«id=7f; HttpOnly»'}"),
        benign=("cookie: not set", "cookies disabled"),
    ),
    Rule(
        name="cookie-jar",
        reason="Python's cookie jars print name and value of each cookie.",
        find=matching(r"<Cookie\ [^\s=<>]{1,80}=(?P<secret>[^\s<>]{3,}+)\ for"),
        words=("cookie",),
        leaks=("<RequestsCookieJar[<Cookie sid=«tr0ub4dor» for api.test/>]>",),
        benign=("<Cookie sid=7 for api.test/>",),
    ),
)

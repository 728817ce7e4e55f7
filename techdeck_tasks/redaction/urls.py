"""Credentials in addresses: in a URL's authority, in its query, and addresses that are credentials."""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import shapes
from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching

# Up to the last "@" of the authority: passwords hold "@", "," and ";" more often than one would think.
_AUTHORITY = re.compile(
    r"""://(?P<user>[^\s/?#"'`<>@:]{0,256}+)(?P<colon>:?)(?P<password>[^\s/?#"'`<>]{0,1024}+)"""
)
# "/", "?" or "#" inside the password, which should have been encoded there.
_LOOSE_AUTHORITY = re.compile(
    r"""://[^\s/?#"'`<>@:]{0,128}:(?P<password>[^\s"'`<>@]{1,128}+)@(?=[A-Za-z0-9.-]{1,128}+(?:[:/"'\s]|\Z))"""
)
_NEXT_ADDRESS = re.compile(r"[;,][a-z][a-z0-9+.-]{1,20}:\Z")
_PORT_AND_PATH = re.compile(r"\d*/")


def _find_url_credentials(subject: Subject) -> Iterator[Span]:
    """Yield the password of each URL, or its user where that looks like a token."""
    text, start = subject.text, 0
    while match := _AUTHORITY.search(text, start):
        at = match["password"].rfind("@")
        # Lists of addresses, as of sentinels, are joined without a space: the next one begins behind the "@".
        start = match.end() if at < 0 else match.start("password") + at + 1
        if match["colon"] and at > 0:
            next_address = _NEXT_ADDRESS.search(match["password"])
            if next_address:
                at = match["password"].rfind("@", 0, next_address.start())
                start = match.start("password") + next_address.start()
            if at > 0:
                yield match.start("password"), match.start("password") + at
        elif match["colon"] and at < 0:
            loose = _LOOSE_AUTHORITY.match(text, match.start())
            if loose and "/" in loose["password"] and not _PORT_AND_PATH.match(loose["password"]):
                yield loose.span("password")
        elif at == 0 and shapes.looks_assigned(match["user"]):
            yield match.span("user")


URL_RULES: tuple[Rule, ...] = (
    Rule(
        name="url-credentials",
        reason="A URL's authority may hold user and password.",
        find=_find_url_credentials,
        hints=("://",),
        leaks=(
            "postgres://app:«p%23ss!»@db/audit",
            "redis://:«p,a;s@s»@localhost:6379/0",
            "amqp://app:«pa/ss»@broker//",
            "amqp://app:«guest»@broker.example.org:5672//",
            "https://«0123456789abcdef0123456789abcdef»@o1.ingest.test/2",
            "sentinel://:«p;a@s»@s1:26379;sentinel://:«p@ss»@s2:26379",
        ),
        benign=("ssh://git@host/repo", "http://host:8080/@scope/package", "amqp://guest@broker//"),
    ),
    Rule(
        name="bare-dsn-credentials",
        reason="Go and JDBC drivers write user:password@host without a scheme.",
        find=matching(
            r"""(?<![\w/.@-]) [A-Za-z][\w.-]{0,63}+ (?<!mailto) [:/]
            (?P<secret> [^\s:@/"'`<>()\[\]{},]{3,128}+ ) @ (?!sha\d) (?:tcp\(|unix\(|//)? (?=[A-Za-z0-9])""",
        ),
        hints=("@",),
        leaks=("dsn root:«hunter2»@tcp(db:3306)/audit", "jdbc:oracle:thin:app/«tiger»@//db:1521/x"),
        benign=("image nginx:1.25@sha256:0123", "sync with celery@worker", "npm install host/@scope"),
    ),
    Rule(
        name="url-parameter",
        reason="Presigned URLs and API keys stand in the query.",
        find=matching(
            r"""[?&;] (?i:
                (?:x-(?:amz|goog|oss|ms|cos)-)? (?:signature|credential|security-token|q-signature)
              | access_?key(?:_?id)? | api_?key | api_?token | appid | auth | awsaccesskeyid | client_id
              | code | googleaccessid | hmac | jwt | key | key-pair-id | nonce | otp | pass | policy | pw
              | s?hash | session | sid | sig | sign | state | subscription-key | t(?:oken)? | x-token
              | dob | email | login | mrn | phone | ssn | u(?:ser)?name | user
            ) = (?P<secret> [^\s"'`<>&;\#\\)]{3,}+ )""",
            lambda value: not value.isdigit() or len(value) >= 5,  # noqa: PLR2004 - shorter ones count something
        ),
        hints=("?", "&"),
        leaks=(
            "https://b.test/o?X-Amz-Credential=«AKID/20250101/eu/s3»&X-Amz-Signature=«0a1b2c»",
            "https://s.test/c?sv=2024-01-01&sig=«aB3%2Bx»",
        ),
        benign=("/v1/datasets?page=2&limit=50", "GET /x?sort=asc&state=12"),
    ),
    Rule(
        name="webhook-url",
        reason="Whoever knows a webhook's address can post to it.",
        find=matching(
            r"""(?<![\w.-]) (?P<secret> (?:[\w-]{1,40}\.){0,4} (?i:
                hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/
              | discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/
              | webhook\.office\.com/webhookb2/ | outlook\.office\.com/webhook/
              | logic\.azure\.com[^\s"'<>]{0,80}/workflows/
              | chat\.googleapis\.com/v1/spaces/ | api\.telegram\.org/bot
              | hooks\.zapier\.com/hooks/catch/ | maker\.ifttt\.com/trigger/
              | events\.pagerduty\.com/integration/
              | hooks?\.(?:eu\d|us\d|integromat|make)[\w.]{0,20}/
              | open\.(?:feishu|larksuite)\.\w{2,3}/open-apis/bot/v2/hook/
              | qyapi\.weixin\.qq\.com/cgi-bin/webhook/
            ) [^\s"'`<>]{6,}+ )""",
        ),
        words=(
            "bot",
            "chat",
            "hook",
            "hooks",
            "ifttt",
            "logic",
            "office",
            "pagerduty",
            "telegram",
            "webhook",
            "webhooks",
        ),
        leaks=("POST https://«hooks.slack.com/services/T000/B000/abc» 404",),
        benign=("see https://api.slack.com/messaging/webhooks",),
    ),
)

"""Secrets that need no label: vendor tokens, and strings too random to be a name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching
from techdeck_tasks.redaction.shapes import looks_random
from techdeck_tasks.redaction.vendors import vendor_token_end

# A run of the characters that tokens are made of. A dot or dash inside belongs to the run, one at its end not.
_CANDIDATE = re.compile(r"(?<![A-Za-z0-9_~+])[A-Za-z0-9_~+][A-Za-z0-9_~+.=-]{14,}+")
_WORDS = re.compile(r"[a-z_.=-]*+|[A-Z]?[a-z]+(?:[._-][A-Za-z]?[a-z]+)*+")
_UUID_OR_HEX = re.compile(r"(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|[0-9a-f]+|[0-9A-F]+|[\d.-]+")
_NEIGHBOUR = re.compile(r"(?:[/+=][A-Za-z0-9_~+=-]*+)*+")


def find_tokens(subject: Subject) -> Iterator[Span]:
    """Yield each vendor token and each unlabelled random string."""
    text, done = subject.text, 0
    for match in _CANDIDATE.finditer(text):
        start, end = match.span()
        if start < done:
            continue
        token = match[0]
        if _WORDS.fullmatch(token) or _UUID_OR_HEX.fullmatch(token):
            continue
        known = vendor_token_end(text, start)
        if known is not None:
            done = max(known, end)
            yield start, _trimmed(text, start, done)
            continue
        for piece in re.finditer(r"[^.=]+", token):
            if len(piece[0]) >= 15 and looks_random(piece[0]):
                done = _base64_end(text, end)
                yield start, _trimmed(text, start, done)
                break


def _base64_end(text: str, end: int) -> int:
    """Extend a random run over the slashes of base64, as long as what follows still looks like base64."""
    match = _NEIGHBOUR.match(text, end)
    rest = match[0] if match else ""
    if rest.endswith("=") or any(looks_random(part) for part in rest.split("/")):
        return end + len(rest)
    return end


def _trimmed(text: str, start: int, end: int) -> int:
    """Leave the full stop that ends a sentence."""
    return start + len(text[start:end].rstrip("."))


TOKEN_RULES: tuple[Rule, ...] = (
    Rule(
        name="token",
        reason="Vendors prefix their tokens; other credentials are strings that no programmer would choose as a name.",
        find=find_tokens,
        leaks=(
            "bad credential «xoxb-1111111111-222222222222-aBcDeFgH»",
            "clone failed: «ghp_0123456789abcdefABCDEF0123456789abcd».",
            "value «q7ZxR2mVb9LkT4wYc8NpD3sF» refused",
            "job 4 said «eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2lnbmF0dXJl» twice",
        ),
        benign=(
            "sync with celery@anonlink-worker-77b7694d68-w4gst",
            "botocore.exceptions.ClientError: when calling the ListObjectsV2Operation",
            "image sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "commit 8a08f4b52efaa2014867874031e0f420f142f6b5",
            "task 45422346-1572-4e69-ad7e-77a488cbf2ee failed",
            "/usr/lib/python3.11/site-packages/sqlalchemy/engine/default.py",
            "HTTPSConnectionPool and InvalidSignatureException2Error and test_Retry_After_Http429",
        ),
    ),
    Rule(
        name="azure-client-secret",
        reason="Microsoft Entra client secrets hold a tilde after a digit and Q.",
        find=matching(r"(?<![\w~.-]) [\w~.-]{3} \dQ~ [\w~.-]{30,36} (?![\w~-])"),
        hints=("q~",),
        leaks=("login failed with «Abc8Q~ddddddddddddddddddddddddddddddddddd»",),
        benign=("see the FAQ~ page of 8Q~",),
    ),
    Rule(
        name="tilde-token",
        reason="Only tokens mix tildes with letters and digits: Microsoft, Entra and WCF values.",
        find=matching(r"(?<![\w~./-]) (?=[\w.-]{0,40}~) [\w~.-]{24,} (?![\w~-])", lambda value: "~/" not in value and any(map(str.isdigit, value)) and any(map(str.isupper, value))),
        hints=("~",),
        leaks=("<value>«~Gg1A~nABCdEf2vpg_nXBGqFsbGK-t»</value>",),
        benign=("copy ~/data to ~user", "a ~ b"),
    ),
    Rule(
        name="mailchimp-key",
        reason="Mailchimp API keys are a hash followed by their data centre.",
        find=matching(r"(?<![0-9a-fA-F]) [0-9a-f]{32}-us\d{1,2} (?![\w-])"),
        hints=("-us",),
        leaks=("calling with «0123456789abcdef0123456789abcdef-us12»",),
        benign=("region 0123456789abcdef-us12",),
    ),
    Rule(
        name="telegram-bot-token",
        reason="Telegram bots are addressed with their token in the path.",
        find=matching(r"(?<![0-9A-Za-z]) (?:bot)? (?P<secret> \d{5,16}:A[\w-]{34} ) (?![\w-])"),
        hints=(":a",),
        leaks=("POST /bot«123456789:A" + "bcdefghijklmnopqrstuvwxyz012345678» failed",),
        benign=("at 12345678:Abc",),
    ),
    Rule(
        name="terraform-cloud-token",
        reason="HashiCorp marks the middle of its Atlas tokens.",
        find=matching(r"(?<![\w.]) [A-Za-z0-9]{10,20} \.atlasv1\. [\w=-]{20,}+"),
        hints=(".atlasv1.",),
        leaks=("token «aaaaaaaaaaaaaa.atlasv1.abcdefghijklmnopqrstuvwxyz»",),
        benign=("package io.atlasv1.client",),
    ),
    Rule(
        name="crypto-private-key",
        reason="A private key or wallet of a block chain: 0x and 40 or 64 hexadecimal digits, or base58.",
        find=matching(r"(?<![0-9A-Za-z]) 0x (?: [0-9a-fA-F]{64} | [0-9a-fA-F]{40} ) (?![0-9A-Za-z])"),
        hints=("0x",),
        leaks=("signing with «0x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef»",),
        benign=("<Task at 0x7f3a5c0d1e90>", "code 0xdeadbeef"),
    ),
)

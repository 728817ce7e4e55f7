"""Secrets that need no label: vendor tokens, and strings too random to be a name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching
from techdeck_tasks.redaction.shapes import looks_random
from techdeck_tasks.redaction.vendors import vendor_token_end

# A run of the characters that tokens are made of, and its parts: "key=value", "+value".
_RUN = re.compile(r"[A-Za-z0-9_~+.=-]{15,}+")
_PART = re.compile(r"[A-Za-z0-9_~][A-Za-z0-9_~+.-]{14,}+")
_PIECE = re.compile(r"[^.]{15,}")
_BASE64_REST = re.compile(r"[A-Za-z0-9/+_-]*={0,2}")
# What no token looks like: words in any case, hashes, UUIDs, numbers.
_WORDS = re.compile(r"[a-z_.=-]*+|[A-Z]?[a-z]+(?:[._-][A-Za-z]?[a-z]+)*+")
_WORDS_AND_NUMBERS = re.compile(r"[A-Za-z]{1,3}(?:[-_.](?:[A-Z]?[a-z]{2,}+\d{0,4}|\d{1,4}|[a-z]{1,3}))++")
_SHORTEST_WORD = 3
# What is marked as a credential of one environment: acme_production_0f3c... Mailgun and Zoho join hashes.
_MARKED = re.compile(
    r"""[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}\Z | 1000\.[0-9a-f]{32}\.[0-9a-f]{32}\Z
    | [A-Za-z]{1,20}(?:_[A-Za-z]{1,12})?
    _(?:at|live|oat|pat|prod|production|rk|rt|sandbox|secret|sk|token|uut)_
    (?=[A-Za-z]{0,16}\d)(?=\d{0,16}[A-Za-z])[A-Za-z0-9]{20,}""",
    re.VERBOSE,
)
_HASH = re.compile(r"(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|[0-9a-f]+|[0-9A-F]+|[\d.-]+")


def find_tokens(subject: Subject) -> Iterator[Span]:
    """Yield each vendor token and each unlabelled random string."""
    text = subject.text
    for run in _RUN.finditer(text):
        if _WORDS.fullmatch(run[0]) or _HASH.fullmatch(run[0]):
            continue
        start, end = run.span()
        if text[start - 1 : start] == "\\" and text[start] in "nrt":
            start += 1  # the rest of an escaped line break
        for part in _PART.finditer(text, start, end):
            stop = _token_end(text, part)
            if stop:
                yield part.start(), part.start() + len(text[part.start() : stop].rstrip("."))


def _token_end(text: str, part: re.Match[str]) -> int:
    """Return where the token that begins with `part` ends, 0 if none does."""
    token = part[0]
    if _HASH.fullmatch(token):
        return 0
    known = vendor_token_end(text, part.start())
    if known is not None and not _WORDS_AND_NUMBERS.fullmatch(token):
        return max(known, part.end())
    if _MARKED.match(text, part.start(), part.end()):
        return part.end()
    if any(looks_random(piece) for piece in _PIECE.findall(token)):
        rest = _BASE64_REST.match(text, part.end())
        if rest and (rest[0].endswith("=") or any(map(looks_random, rest[0].split("/")))):
            return rest.end()
        return part.end()
    return 0


def _is_base64(value: str) -> bool:
    """Tell whether a run with slashes is base64 and no path, whose parts are words."""
    if value.startswith("/") or not ("/" in value or "+" in value):
        return False
    parts = re.split(r"[/+=]", value)
    joined = "".join(part for part in parts if len(part) < _SHORTEST_WORD or not _WORDS.fullmatch(part))
    return len(joined) * 10 >= len(value) * 8 and (looks_random(joined) or looks_random(joined[:40]))


TOKEN_RULES: tuple[Rule, ...] = (
    Rule(
        name="token",
        reason="Vendors prefix their tokens; other credentials are strings that nobody chooses as a name.",
        find=find_tokens,
        leaks=(
            "bad credential «xoxb-1111111111-222222222222-aBcDeFgH»",
            "clone failed: «ghp_0123456789abcdefABCDEF0123456789abcd».",
            "value «q7ZxR2mVb9LkT4wYc8NpD3sF» refused",
            "with «acme_production_0f3c9a7be04d52861e7fb09c4d8a6235e190»",
            "as «1000.0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef»",
            "as «0123456789abcdef0123456789abcdef-01234567-89abcdef»",
            "job 4 said «eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0ZXN0In0.c2lnbmF0dXJl» twice",
        ),
        benign=(
            "sync with celery@intake-worker-5d9c7f4b86-x2vqp",
            "aws.errors.RemoteFault: in the ListBucketsV2Operation",
            "image sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "commit 3f1c9a7be04d52861e7fb09c4d8a6235e1907bfc",
            "task c3d81f60-2b9a-4f7e-b1d5-90e4a7c2386d failed",
            "etag 0123456789abcdef0123456789abcdef-7",
            "image app-live-3f1c9a7be04d52861e7fb09c4d8a6235e1907bfc, orders_prod_20240101120000123456",
            "/usr/lib/python3.11/site-packages/sqlalchemy/engine/default.py",
            "HTTPSConnectionPool and InvalidSignatureException2Error and test_Retry_After_Http429",
        ),
    ),
    Rule(
        name="base64",
        reason="Keys, credentials and whole documents travel in base64, whose slashes look like a path's.",
        find=matching(r"[A-Za-z0-9+/]{32,}+={0,2}(?![\w~-])", _is_base64),
        hints=("/", "+"),
        leaks=("sealed as «sw+DBAJC4gQHk/jk/zRhpjbp+NPzU2bnt16780kAOJ8=» today",),
        benign=("no usr/lib/python3/distpackages/celery/app/base/Task/apply", "a/b"),
    ),
    Rule(
        name="azure-client-secret",
        reason="Microsoft Entra client secrets hold a tilde after a digit and Q.",
        find=matching(r"(?<![\w~.-]) [\w~.-]{3} \dQ~ [\w~.-]{30,36} (?![\w~-])"),
        hints=("~",),
        leaks=("login failed with «Abc8Q~ddddddddddddddddddddddddddddddddddd»",),
        benign=("see the FAQ~ page of 8Q~",),
    ),
    Rule(
        name="tilde-token",
        reason="Only tokens mix tildes with letters and digits: Microsoft, Entra and WCF values.",
        find=matching(
            r"(?<![\w~./-]) (?=[\w.-]{0,40}~) [\w~.-]{24,} (?![\w~-])",
            lambda value: "~/" not in value and any(map(str.isdigit, value)) and any(map(str.isupper, value)),
        ),
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
        name="asana-token",
        reason="Asana joins the user's number with a hash.",
        find=matching(r"[0-2](?<![\w.-].)/\d{12,19}(?:/\d{12,19})?:[0-9a-f]{32}(?![\w-])"),
        hints=("/",),
        digits=6,
        leaks=("as «1/1200000000000001:0123456789abcdef0123456789abcdef»",),
        benign=("1/12: 0123456789abcdef0123456789abcdef",),
    ),
    Rule(
        name="braintree-token",
        reason="Braintree's tokens name the environment between dollar signs.",
        find=matching(r"access_token\$\w{1,20}\$[0-9a-z]{16}\$[0-9a-f]{32}"),
        words=("access",),
        leaks=("as «access_token$production$abcdefgh01234567$0123456789abcdef0123456789abcdef»",),
        benign=("access_token$production",),
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
        words=("atlasv",),
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

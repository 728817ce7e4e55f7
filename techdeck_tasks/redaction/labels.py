"""Values that a word next to them calls secret: `api_key = "..."`, `--token ...`, `<password>...</password>`.

One regular expression finds a label and what joins it to its value; plain code then reads the value by the
rules of its quoting and decides. How much the value must look like a secret depends on the label:

- `password`, `secret`: any value.
- `token`, `api_key`, `session_id`, ...: any value that is no small number.
- `key`, `auth`, `signature`, ...: only a value that looks assigned by a machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import shapes
from techdeck_tasks.redaction.rule import REDACTED, Rule, Span, Subject

_QUOTE = r"""\\{0,8}+["'`]|%2[27]|&quot;|&\#0?3[49];|\\{1,4}u002[27]"""

_QUALIFIED_KEY = (
    "api|app|application|access|account|admin|aes|auth|authorization|authentication|client|consumer|crypt|crypto|data|"
    "decryption|deploy|developer|dev|encrypt|encryption|enc|fernet|hmac|host|integration|jwt|license|licence|"
    "live|login|management|master|organi[sz]ation|personal|private|priv|prod|project|publishable|read|recovery|"
    "rest|root|rsa|sas|secret|sendgrid|server|service|session|shared|signing|sign|ssh|storage|stripe|subscription|"
    "symmetric|test|user|wallet|webhook|workspace|wrapping|write"
)

_STEM = rf"""(?:
    (?P<password> passw(?:or)?d | passphrase | passcode | passwort | kennwort | contrase[nñ]a | pwd | pass(?![a-z])
        | secret | identified\ by | (?<![a-z])(?:otp|totp|cvv2?|cvc2?|pin)(?![a-z]) )
  | (?P<token> token | (?<![a-z])(?:{_QUALIFIED_KEY})[ _.-]{{0,2}}key | credential | sess(?:ion)?[ _-]?id | jwt
        | conn(?:ection)?[_-]?str(?:ing)? | bearer | user_data | api[_-]?auth | webhook[_-]?url )
  | (?P<weak> key | (?<![a-z])auth | cred(?![a-z]) | (?<![a-z])sig(?![a-z]) | signature | nonce | salt
        | (?:access|client|app|application|tenant|account|subscription|api|organi[sz]ation)[ _-]?id(?![a-z])
        | (?<![a-z])(?:sid|hash|login|assertion|ticket|csrf|xsrf|pat|dsn)(?![a-z]) )
)"""

_FILLER = r"""(?:[ \t]{1,4}(?:provided|given|supplied|is|was|are|value|used|with|id|string|of|received|found|specified
    |named|set\ to|equal\ to|has\ value|sent|presented|ending\ in))"""

_LABEL = re.compile(
    rf"""{_STEM}
    (?P<tail>(?:(?!{re.sub(r"[?]P<[a-z]+>", "?:", _STEM)})[a-z0-9_-]){{0,40}}+)
    (?P<close>(?:{_QUOTE})?+) \]?+
    (?:
        (?P<attribute> \s{{0,8}},?\s{{0,8}} (?:{_QUOTE})? (?:value|val|default|content|data)(?:{_QUOTE})?\s{{0,2}}[:=]{{1,2}} )
      | (?:[ \t]{{0,8}}:?[ \t]{{0,4}}(?:string|str|bytes|secretstr|optional\[str\]))?
        [ \t]{{0,16}}+ (?P<operator> =>|:=|\?\?=|\|\|[:=]|[.+!]={{1,2}}|={{1,3}}|:(?![:/\\])|->|%3[ad] ) (?:[ \t]{{0,4}}[|>]-?(?=[ \t]{{0,4}}\n))?
      | (?P<tag> (?:\s[^<>]{{0,80}})?> )
      | (?P<comma> , )
      | (?P<gap> {_FILLER}{{0,3}}[ \t]{{0,4}}[:=]?(?=[ \t"'`(\\]) )
    )
    (?P<space>\s{{0,32}}+)
    (?P<open> (?:[a-z_][\w.]{{0,30}}\((?=[bru]?["']))? (?P<bracket>[\[(]\s{{0,4}})? [bruf]{{0,2}} (?P<quote>{_QUOTE}) )?+
    """,
    re.VERBOSE,
)

_BARE = re.compile(
    r"""(?:
        [^\s"'`<>,;&()\[\]{}\\]
      | \\(?![nrtu"'`\\])
      | [,;()\[\]{}](?=[^\s"'`<>=:,;&()\[\]{}\\]{2,64}+(?:[\s"'`.]|\Z))
    )++""",
    re.VERBOSE,
)
_TEMPLATE = re.compile(r"\$?\{\{?[^{}\n]{0,80}\}\}?|\$\([^()\n]{0,80}\)|<[^<>\n]{0,80}>|%\(\w{1,40}\)s")
_URLENCODED = re.compile(r"(?:[^\s\"'<>%&]|%(?!2[267c]|7d|0a))++", re.IGNORECASE)
_NEWLINE = re.compile(r"[\r\n]")
_CODE = re.compile(
    r"""[A-Za-z_]\w{0,60}(?:\.[A-Za-z_]\w{0,60}){0,6}[(\[]
      | (?:self|cls|os|settings|config|cfg|conf|request|req|env|args|kwargs|options|app|ctx|context|data|row|user)\.[A-Za-z_]""",
    re.VERBOSE,
)
_KEEPS_SECRECY = re.compile(
    r"""(?:e?s)?[_-]{0,2}(?:\d{0,4}|value|val|text|string|str|plain|plaintext|raw|hash|hashed|digest|md5|sha\d*|b64|base64
      |hex|encoded|encrypted|enc|data|secret|pass|confirmation|confirm|repeat|again|old|new|current|previous|prod|production
      |dev|test|staging|stage|live|local|default|primary|secondary|main|admin|root|user|a|b|id|is|in|for|v\d|const|env|var)""",
    re.VERBOSE,
)
# `cache_key=...`, `max_tokens=...`: labels of lookups and counters, whose values are names, ids and numbers.
_OPERATIONAL_QUALIFIER = re.compile(
    r"""(?:^|[_.-])(?:primary|foreign|partition|routing|sort|cache|idempotency|dedup|deduplication|redis|object|s3|lock|group|
    correlation|message|composite|unique|index|row|hash|dict|missing|natural|surrogate|join|range|task|queue|stream|
    storage|blob|lookup|map|registry|sharding|shard|ordering|binding|grouping|max|min|num|total|prompt|completion|input|
    output|count|n|eos|bos|pad|unk|sep|mask|cls|commit|content|file|image|build|block|tree|git|x|trace|span)[_.-]?\Z""",
    re.VERBOSE,
)
_STEM_ALONE = re.compile(_STEM, re.VERBOSE)
_NAME = re.compile(r"[A-Za-z][A-Za-z_.-]*")
_NAME_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789_.-$"
_MAX_WEAK = 512


def find_labelled(subject: Subject) -> Iterator[Span]:
    """Yield the span of each value that its label calls secret."""
    text, done = subject.text, 0
    for match in _LABEL.finditer(subject.folded):
        if match.start() < done:
            continue
        span = _read_value(text, match)
        if span is None:
            continue
        start, end = span
        if _is_secret(text, match, text[start:end]):
            done = end
            yield span


def _read_value(text: str, match: re.Match[str]) -> Span | None:
    """Return where the value after a label starts and ends, or None where there is none."""
    start = match.end()
    if start >= len(text) or text.startswith(REDACTED, start):
        return None
    quote, bracket = match["quote"], match["bracket"]
    if "\n" in match["space"] and not (quote or match["tag"] or match["operator"] and "\n" in match[0]):
        return None
    if match["tag"]:
        end = text.find("<", start)
        end = len(text) if end < 0 else end
        return (start, start + len(text[start:end].rstrip()))
    if quote and bracket:
        return (start - len(quote), _bracket_end(text, start, "]" if "[" in bracket else ")"))
    if quote:
        return (start, _quoted_end(text, start, text[match.start("quote") : match.end("quote")]))
    if text[start] in "[(" and match["operator"]:
        return None
    if template := _TEMPLATE.match(text, start):
        start = template.end()
    bare = (_URLENCODED if match["operator"] and match["operator"][0] == "%" else _BARE).match(text, start)
    if bare is None:
        return None
    end = start + len(bare[0].rstrip(".,:;!?"))
    return (start, end) if end > start else None


def _quoted_end(text: str, start: int, quote: str) -> int:
    """Return where a quoted value ends: at the same quote, else at the end of the line."""
    newline = _NEWLINE.search(text, start)
    limit = newline.start() if newline else len(text)
    at = start
    while True:
        at = text.find(quote, at, limit)
        if at < 0:
            return limit
        if quote in {'"', "'", "`"}:
            backslashes = at - len(text[max(start, at - 16) : at].rstrip("\\")) - max(start, at - 16)
            if backslashes % 2:
                at += 1
                continue
        return at


def _bracket_end(text: str, start: int, closing: str) -> int:
    """Return where a list or tuple of quoted values ends: at its bracket, else at the end of the line."""
    newline = _NEWLINE.search(text, start)
    limit = newline.start() if newline else len(text)
    end = text.find(closing, start, limit)
    return limit if end < 0 else end


def _prefix(match: re.Match[str]) -> str:
    """Return the part of the label's identifier that stands before its last sensitive word."""
    before = match.string[max(0, match.start() - 60) : match.start()]
    return before[len(before.rstrip(_NAME_CHARS)) :]


def _is_secret(text: str, match: re.Match[str], value: str) -> bool:
    """Decide, from the label, the joint and the value, whether the value must go."""
    if not value or shapes.is_trivial(value):
        return False
    prefix, tail = _prefix(match), match["tail"]
    if match["password"] == "pass" and prefix[-1:].isalpha() and text[match.start()] != "P":
        return False  # "bypass=", "compass:"
    short = value[:_MAX_WEAK]
    if not _KEEPS_SECRECY.fullmatch(tail):
        return not match["tag"] and (shapes.looks_random(short) or (shapes.is_hex(short) and len(short) >= 32))
    if _OPERATIONAL_QUALIFIER.search(prefix) and not match["password"]:
        return shapes.looks_random(short)
    if match["comma"]:
        if prefix.startswith("--"):
            return not value.startswith("-")
        return bool(match["close"]) and shapes.looks_assigned(short)
    if match["tag"]:
        at = match.start() - len(prefix) - 1
        return at >= 0 and text[at] in "<:" and (bool(match["password"]) or shapes.looks_assigned(short))
    if match["gap"] is not None:
        return _is_secret_in_prose(text, match, prefix, short)
    if match["weak"]:
        if prefix in {"", "."} and not match["quote"] and shapes.is_uuid(short):
            return False
        # In <add key="ClearTextPassword" value="..."> the first value is itself a label.
        return shapes.looks_assigned(short) and not (_NAME.fullmatch(short) and _STEM_ALONE.search(short.lower()))
    if match["token"] and short.isdigit() and len(short) < 6:
        return False
    if match["quote"] or match["attribute"]:
        return not shapes.is_prose(short)
    if _CODE.match(text, match.end()):
        return False
    if ":" in match["operator"] and match["operator"] != ":=":
        return _is_secret_after_colon(text, match, short)
    return not (match["token"] and short.isdigit() and len(short) < 6)


def _is_secret_after_colon(text: str, match: re.Match[str], value: str) -> bool:
    """Judge `password: value` without quotes, where a sentence may follow instead of a value."""
    if not shapes.is_plain_word(value):
        return not (shapes.is_operational(value) and bool(match["token"]))
    rest = text[match.end() + len(value) : match.end() + len(value) + 2]
    ends = not rest or rest[0] in "\r\n,;}\"'\\" or (rest[0] == "." and not rest[1:].isalnum())
    return ends and not shapes.is_state(value)


def _is_secret_in_prose(text: str, match: re.Match[str], prefix: str, value: str) -> bool:
    """Judge a value that only a space, or words as in "API key provided: ...", joins to its label."""
    if prefix.startswith("-") and not match["close"]:
        return not value.startswith("-") and not shapes.is_state(value)
    if shapes.looks_assigned(value):
        return not shapes.is_operational(value)
    if not match["password"]:
        return False
    if match["password"] == "identified by":
        return bool(match["quote"])
    if len(value) >= 6 and not shapes.is_operational(value) and re.search(r"[0-9!@#$%^&*+]", value):
        return re.search(r"[A-Za-z]", value) is not None
    at_line_start = match.start() == 0 or text[match.start() - 1] == "\n"
    line_ends = text[match.end() + len(value) : match.end() + len(value) + 1] in {"", "\n", "\r"}
    return at_line_start and line_ends and not match["gap"].strip() and not shapes.is_state(value)


LABELLED = Rule(
    name="labelled-value",
    reason="A value named password, token, secret, key or the like, in any notation that joins name and value.",
    find=find_labelled,
    hints=(
        "pass", "pwd", "secret", "token", "key", "auth", "cred", "sess", "jwt", "sig", "nonce", "salt", "otp", "pin",
        "cvv", "cvc", "_id", "-id", "clientid", "accessid", "appid", "contrase", "identified by", "connection",
        "bearer", "user_data", "webhook", "sid", "hash", "login", "assertion", "ticket", "csrf", "xsrf", "pat", "wort",
    ),
    leaks=(
        "password=«hunter2»",
        "password:«crickets»",
        "user root\npassword «crickets»",
        'api_key = "«q9w8e7r6t5»"',
        "{'db_password': '«one two three»', 'db': 'audit'}",
        r"payload {\"client_secret\": \"«abc-def-ghi»\"} refused",
        "Incorrect API key provided: «k9d8f7g6h5j4k3l2».",
        "credentials «ab12cd34ef56» do not exist in our records",
        'System.setProperty("SERVICE_TOKEN", "«9f8e7d6c5b4a3f2e»")',
        "<password>«tr0ub4dor»</password>",
        '<add key="Password" value="«Cleartext»" />',
        "deploy --password «horse» --region eu",
        "export GRAPH_SECRET=«blue42»",
        "callback?state=1&access_token=«ya77ab99»&page=2",
        "body=grant&client_secret%3D«ab12cd»%26scope%3Dread",
        "serviceKey := `«aaaabbbb1111cccc»`",
        "ALTER ROLE app IDENTIFIED BY '«swordfish»'",
    ),
    benign=(
        "token expired",
        "password must be at least 8 characters",
        "unexpected token '<' in JSON at position 0",
        "secret not found",
        "429 Too Many Requests: token bucket exhausted, retry after 30 seconds",
        "max_tokens=4096 exceeded",
        "KeyError: 'DATABASE_PASSWORD'",
        "invalid token: unexpected end of file",
        "password = None",
        "token=${SERVICE_TOKEN}",
        "{'password': ['This field is required.']}",
        "password_policy=strict",
        'null value in column "token" of relation "tokens" violates not-null constraint',
        "duplicate primary key: 9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
    ),
)

"""What a name says about its value: the words that make `db_password` or `X-Api-Key` sensitive."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum

from techdeck_tasks.redaction.rule import Subject


class Sensitivity(IntEnum):
    """How much a value must look like a secret to be hidden under a name."""

    NONE = 0
    """The name is of something public: `max_tokens`, `cache_key`, `bypass`."""
    RANDOM = 1
    """`token_name`, `password_file`: hidden if it would be hidden without a name, or is a long hash."""
    ASSIGNED = 2
    """`key`, `auth`, `signature`: hidden if it looks as if a machine had assigned it."""
    SECRET = 3
    """`token`, `api_key`, `session_id`: hidden unless it is a small number."""
    PASSWORD = 4
    """`password`, `secret`: hidden, even a plain word."""


# Words that stand in names, in lower case, under the first letters that they share.
_WORDS: dict[str, dict[str, Sensitivity]] = {
    "pass": dict.fromkeys(
        ("pass", "password", "passwd", "passphrase", "passcode", "passwort", "passord", "passe"),
        Sensitivity.PASSWORD,
    ),
    "pw": dict.fromkeys(("pwd", "pw"), Sensitivity.PASSWORD),
    "secret": {"secret": Sensitivity.PASSWORD},
    "identified by": {"identified by": Sensitivity.PASSWORD},
    "otp": {"otp": Sensitivity.PASSWORD},
    "_pin": {"_pin": Sensitivity.PASSWORD},
    "token": {"token": Sensitivity.SECRET},
    "cred": {"credential": Sensitivity.SECRET, "cred": Sensitivity.ASSIGNED},
    "jwt": {"jwt": Sensitivity.SECRET},
    "user_data": {"user_data": Sensitivity.SECRET},
    "sess": dict.fromkeys(
        ("sessionid", "session_id", "session-id", "session id", "sessid"), Sensitivity.SECRET
    ),
    "connection": dict.fromkeys(
        ("connectionstring", "connection_string", "connection string"), Sensitivity.SECRET
    ),
    "key": {"key": Sensitivity.ASSIGNED},
    "auth": {"auth": Sensitivity.ASSIGNED},
    "signature": {"signature": Sensitivity.ASSIGNED},
    "client": dict.fromkeys(("clientid", "client id"), Sensitivity.ASSIGNED),
    "accessid": {"accessid": Sensitivity.ASSIGNED},
    "appid": {"appid": Sensitivity.ASSIGNED},
    "_id": {"_id": Sensitivity.ASSIGNED},
    "-id": {"-id": Sensitivity.ASSIGNED},
    "_sig": {"_sig": Sensitivity.ASSIGNED},
    "_pat": {"_pat": Sensitivity.ASSIGNED},
}
# Words that no longer name begins or ends with: seen at once among the words of the text.
_LONE_WORDS = dict.fromkeys(
    ("contrasena", "cvv", "kennwort", "parola", "senha", "wachtwoord"), Sensitivity.PASSWORD
) | {"bearer": Sensitivity.SECRET}
# The same in writing that is not ASCII, where most messages need no look.
_WORDS_ABROAD = dict.fromkeys(
    (
        "contraseña",
        "hasło",
        "heslo",
        "jelszó",
        "lösenord",
        "şifre",
        "пароль",
        "密码",
        "密碼",
        "パスワード",
        "비밀번호",
    ),
    Sensitivity.PASSWORD,
)
_SENSITIVITY = {word: level for words in _WORDS.values() for word, level in words.items()} | _LONE_WORDS


def _longest_first(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


ANY_WORD = _longest_first(_SENSITIVITY)
"""A regular expression of all sensitive words, longest first."""

_WORD_AT = {root: re.compile(_longest_first(words)) for root, words in _WORDS.items()}
_LONE_BYTES = frozenset(word.encode() for word in _LONE_WORDS)
# Words that others contain ("credit", "_pattern"): no letter may stand next to them, or after them.
_ALONE = frozenset(("otp", "cvv", "cred", "pw"))
_NO_LETTER_FOLLOWS = frozenset(("_pin", "_sig", "_pat", "_id", "-id"))

# A key that says what it opens is as good as a token: api_key, private key, SigningKey.
_OPENS = re.compile(
    r"""(?<![a-z])(?:api|app|application|access|account|admin|aes|auth|authorization|authentication|client|consumer
    |crypto?|data|decryption|deploy|dev|developer|enc|encrypt|encryption|fernet|hmac|host|integration|jwt|licen[cs]e
    |live|login|management|master|organi[sz]ation|personal|priv|private|prod|project|publishable|read|recovery|rest
    |root|rsa|sas|secret|server|service|session|shared|sharedaccess|sign|signing|ssh|storage|subscription|symmetric
    |test|user
    |wallet|webhook|workspace|wrapping|write)[ _.-]{0,2}\Z""",
    re.VERBOSE,
)
# Of all ids, those that vendors hand out together with a secret.
_HANDED_OUT = re.compile(r"(?:access|client|app|application|tenant|account|subscription|api|organization)\Z")
# `cache_key=...`, `max_tokens=...`: labels of lookups and counters, whose values are names, ids and numbers.
_LOOKS_UP = re.compile(
    r"""(?:^|[_.-])(?:primary|foreign|partition|routing|sort|cache|idempotency|dedup|deduplication|redis|object|s3|lock
    |group|correlation|message|composite|unique|index|row|hash|dict|missing|natural|surrogate|join|range|task|queue
    |stream|blob|lookup|map|registry|shard|sharding|ordering|binding|grouping|commit|content|file|image|build|block
    |tree|git|trace|span)[_.-]?\Z""",
    re.VERBOSE,
)
_COUNTS = re.compile(
    r"(?:^|[_.-])(?:max|min|num|total|prompt|completion|input|output|count|n|eos|bos|pad|unk|sep|mask|cls)[_.-]?\Z"
)
# What may follow the word in a name and leave it as sensitive: passwordHash, tokens, SECRET_PROD, key2.
_SAME_THING = re.compile(
    r"""(?:e?s)?[_-]{0,2}(?:\d{0,4}|value|val|text|string|str|plain|plaintext|raw|hash|hashed|digest|md5|sha\d*|b64|base64
    |hex|encoded|encrypted|enc|data|secret|pass|confirmation|confirm|repeat|again|old|new|current|previous|prod
    |production|dev|test|staging|stage|live|local|default|primary|secondary|main|admin|root|user|a|b|id|url|v\d|const
    |env|var)""",
    re.VERBOSE,
)
# What "pass" is written on to, as in `bindpass`; most words that end so ("bypass", "compass") have none.
_HAVE_PASSES = (
    "admin",
    "bind",
    "db",
    "ftp",
    "http",
    "ldap",
    "require",
    "root",
    "smtp",
    "ssh",
    "store",
    "user",
)
_PARSERS = re.compile(r"(?:unexpected|unknown|unrecogni[sz]ed|illegal|bad|next|first|last) \Z")
_NAME_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789_.-$"
_LONGEST_PREFIX = 60


def find_words(subject: Subject) -> list[tuple[int, str]]:
    """Return where sensitive words begin in lower-case text, in order; of two at one place the longest."""
    folded = subject.folded
    found: list[tuple[int, str]] = []
    for root, words in _WORD_AT.items():
        if root in folded:
            at = folded.find(root)
            while at >= 0:
                if match := words.match(folded, at):
                    found.append((at, match[0]))
                at = folded.find(root, at + len(root))
    whole = [word.decode() for word in _LONE_BYTES & subject.words]
    if not folded.isascii():
        whole += [word for word in _WORDS_ABROAD if word in folded]
    for word in whole:
        found += [(match.start(), word) for match in re.finditer(word, folded)]
    found.sort()
    return found


def prefix_of(folded: str, start: int) -> str:
    """Return the part of a name that stands before its sensitive word."""
    before = folded[max(0, start - _LONGEST_PREFIX) : start]
    return before[len(before.rstrip(_NAME_CHARS)) :]


def sensitivity_of(  # noqa: C901, PLR0911 - one return per reason
    text: str, folded: str, start: int, word: str, tail: str
) -> Sensitivity:
    """Judge a name by its sensitive word and what stands around it.

    Args:
        text: The text as it is; capitals tell where words begin.
        folded: The same in lower case.
        start: Where `word` begins.
        word: One of those that `find_words` yields.
        tail: The rest of the name after `word`.
    """
    before, prefix = folded[max(0, start - 20) : start], prefix_of(folded, start)
    level = _SENSITIVITY.get(word) or _WORDS_ABROAD[word]
    if word == "passe" and not before.endswith(("mot de ", "mot_de_", "motde")):
        return Sensitivity.NONE
    if word in _ALONE and (before[-1:].isalpha() or tail[:1].isalpha()) and not _is_capital(text, start):
        return Sensitivity.NONE
    if word in _NO_LETTER_FOLLOWS and tail[:1].isalpha():
        return Sensitivity.NONE
    if word == "pass" and before[-1:].isalpha() and not _is_capital(text, start):
        return Sensitivity.PASSWORD if before.endswith(_HAVE_PASSES) else Sensitivity.NONE
    if word in {"_id", "-id"} and not _HANDED_OUT.search(before):
        return Sensitivity.NONE
    if word == "key" and _OPENS.search(before):
        level = Sensitivity.SECRET
    if not _SAME_THING.fullmatch(tail):
        return Sensitivity.RANDOM
    if level is Sensitivity.ASSIGNED and _LOOKS_UP.search(prefix):
        return Sensitivity.RANDOM
    if word == "token" and _COUNTS.search(prefix):
        return Sensitivity.RANDOM
    if word == "token" and _PARSERS.search(before):
        return Sensitivity.ASSIGNED
    return level


def _is_capital(text: str, at: int) -> bool:
    return text[at].isupper() and not text[at - 1 : at].isupper()

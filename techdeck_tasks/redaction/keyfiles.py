"""Key files and hashed passwords that are printed as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching

_BEGIN = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,60}-----|---- BEGIN SSH2 [A-Z ]{1,40}----|PuTTY-User-Key-File-\d:"
)
# A line of a block that has no end: a header, base64, or the short rest of it.
_BODY = re.compile(
    r"""(?:\s|\\{1,8}[nrt]|["'+,\\]|%0[ad])*+
    (?: [A-Za-z][A-Za-z-]{1,30}:\ [^\n\\]{1,200}+
      | [A-Za-z0-9+/=_-]{12,}+
      | [A-Za-z0-9+/=]{1,80}(?=\s*\Z|\s*\\?n?-----|\\n["']) )""",
    re.VERBOSE,
)
_DASHES = "-----"


def _find_blocks(subject: Subject) -> Iterator[Span]:
    """Yield each PEM block; one without a last line as far as it looks encoded."""
    text, done = subject.text, 0
    for begin in _BEGIN.finditer(text):
        if begin.start() < done:
            continue
        following = text.find("-----BEGIN ", begin.end())
        end = text.find("-----END ", begin.end(), following if following >= 0 else len(text))
        if end >= 0:
            label = end + len("-----END ")
            close = text.find(_DASHES, label, label + 80)
            done = close + len(_DASHES) if close >= 0 else len(text)
        else:
            done = begin.end()
            while body := _BODY.match(text, done):
                done = body.end()
        yield begin.start(), done


KEYFILE_RULES: tuple[Rule, ...] = (
    Rule(
        name="pem-block",
        reason="Key files, whole or cut off, on many lines or on one.",
        find=_find_blocks,
        words=("begin", "putty"),
        leaks=(
            "key «-----BEGIN PRIVATE KEY-----\nMIIBVAIBADANBgkqhkiG\nAQEFAASC\n-----END PRIVATE KEY-----»",
            r"'«-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIabcdefghijkl\nmnopqrstuvwxyz0123»' is no key",
        ),
        benign=("expected -----BEGIN, found end of file",),
    ),
    Rule(
        name="ssh-key-or-password-hash",
        reason="A public key identifies its owner; a password hash can be broken offline.",
        find=matching(
            r"""(?<![\w/+]) (?:
                AAAA[BCE][0-9A-Za-z+/]{40,}+={0,2}
              | \$(?:2[abxy]|5|6|1|apr1|y|argon2id?|scrypt|pbkdf2[\w-]{0,20})\$[./0-9A-Za-z$,=+-]{12,}+
              | \{S?SHA\d{0,3}\}[A-Za-z0-9+/=]{20,}+ )"""
        ),
        hints=("aaaa", "$", "{s"),
        leaks=("user mia:«$2b$12$abcdefghijklmnopqrstuv» locked",),
        benign=("costs $1$ or $5", "ssh-rsa AAAAB3"),
    ),
)

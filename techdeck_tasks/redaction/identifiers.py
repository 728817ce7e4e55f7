"""Identifiers of people that have a shape of their own: mail, telephone, social security, cards, accounts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import checksums
from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching

_FREE_MAIL = (
    "aol", "gmail", "gmx", "googlemail", "hotmail", "icloud", "live", "msn", "outlook", "proton",
    "protonmail", "yahoo",
)  # fmt: skip
_SEPARATORS = str.maketrans("", "", " .-")
_PHONE_DIGITS = range(8, 16)  # ITU-T E.164 allows fifteen
_EMAIL = re.compile(
    r"""(?<![\w.%+'-]) (?<!://) (?!(?:celery|git)@)
    [\w.%+'-]{1,64}+ @ (?:[\w-]{1,63}+\.){1,8} (?:xn--[\w-]{1,59}|[^\W\d_]{2,63}) (?!\w)""",
    re.VERBOSE,
)
_AUTHORITY_END = re.compile(r"[/?#\s\"'<>]")
_LONGEST_USERINFO = 256
_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d\d[A-Z0-9 -]{11,44}+")

_CALLING = (
    "call", "called", "calling", "contact", "contacted", "phone", "phoned", "reach", "reached", "ring", "tel",
    "text", "texted",
)  # fmt: skip


def _is_phone(value: str) -> bool:
    return sum(map(str.isdigit, value)) in _PHONE_DIGITS


def _is_card(value: str) -> bool:
    return checksums.payment_card(value.translate(_SEPARATORS))


def _find_emails(subject: Subject) -> Iterator[Span]:
    """Yield each address; what stands before the "@" of a URL's host is no mailbox, and the host stays."""
    text = subject.text
    for match in _EMAIL.finditer(text):
        scheme = text.rfind("://", max(0, match.start() - _LONGEST_USERINFO), match.start() + 1)
        if scheme < 0 or _AUTHORITY_END.search(text, scheme + 3, match.start()):
            yield match.span()


def _find_ibans(subject: Subject) -> Iterator[Span]:
    """Yield each IBAN, grouped or not, whatever follows it."""
    for match in _IBAN.finditer(subject.text):
        shown = match[0]
        places = [place for place, char in enumerate(shown) if char not in " -"]
        length = checksums.iban_length("".join(shown[place] for place in places))
        if length:
            end = places[length - 1] + 1
            if not shown[end : end + 1].isalnum():
                yield match.start(), match.start() + end


IDENTIFIER_RULES: tuple[Rule, ...] = (
    Rule(
        name="email",
        reason="Electronic mail addresses, 164.514(b)(2)(i)(F).",
        find=_find_emails,
        hints=("@",),
        leaks=(
            "no mailbox «mia.k+x@example.org».",
            "to: «mia@xn--bcher-kva.example»",
            "https://a.test/?to=«mia@b.test»",
        ),
        benign=("git@github.com:org/repo", "celery@worker.example.org", "amqp://guest@rabbit.example.org"),
    ),
    Rule(
        name="encoded-email",
        reason="In the query of a URL the sign is encoded.",
        find=matching(
            r"""(?<![\w.%+-]) [\w.+-]{1,64}+ (?:%2[bB][\w.+-]{1,64}+)? %40
            (?:[\w-]{1,63}+\.){1,8} [^\W\d_]{2,63} (?!\w)"""
        ),
        hints=("%40",),
        leaks=("https://a.test/u?to=«mia%40b.test»&x=1",),
        benign=("https://a.test/%40scope/package",),
    ),
    Rule(
        name="disguised-email",
        reason="People hide addresses from robots by a word in brackets.",
        find=matching(
            r"""\b [\w.+-]{1,64}+ [ ]? [\[({<] (?i:at) [\])}>] [ ]?
            (?:[\w-]{1,63}+\.){1,8} [^\W\d_]{2,63} (?!\w)"""
        ),
        hints=("(at)", "[at]"),
        leaks=("write to «mia [at] example.org»", "«mia(at)example.org»"),
        benign=("looked (at) once",),
    ),
    Rule(
        name="spoken-email",
        reason="People write addresses with a word for the sign.",
        find=matching(
            rf"""(?i: \b[\w.+-]{{1,64}}+ [ ]?[\[(]?\bat\b[\])]?[ ]
            (?:{"|".join(_FREE_MAIL)}) (?:\.|[ ]dot[ ])\w{{2,3}}\b )"""
        ),
        words=_FREE_MAIL,
        leaks=("My address is «mia at gmail.com»",),
        benign=("connect at example.com", "error at gmail"),
    ),
    Rule(
        name="social-security-number",
        reason="Social security and taxpayer numbers, 164.514(b)(2)(i)(G).",
        find=matching(r"\d(?<![\w-].)\d{2}([- .])\d{2}\1\d{4}(?![\w-])"),
        digits=6,
        leaks=("row «078-05-1120» refused",),
        benign=("2024-03-15", "id 078-05-11201"),
    ),
    Rule(
        name="phone",
        reason="Telephone and fax numbers, 164.514(b)(2)(i)(D) and (E).",
        find=matching(
            r"""[+\d(] (?:
                # international
                (?<=\+) (?<![\w+]\+) [1-9]\d{0,2} [ .-]? (?:\(\d{1,4}\)[ .-]?)?
                \d{1,5} (?:[ .-]?\d{1,5}){1,6}+
                # (312) 555-0175, 415-555-0132, 1 (312) 555-0175 and with an extension
              | (?<![\d.(+]\d) (?<![\w)]\() (?<![+\d]-\d) (?<!\+) (?:
                    (?<=\()[2-9]?\d{2,3}\)[ .-]?\d{3}[ .-]\d{4}
                  | (?<=\d)\d{0,2} (?: (?:[ .-]\(?[2-9]\d\d\)?)? [ .-] | [ .-]?\(\d{3}\)[ .-]? )
                    \d{3}[ .-]\d{4}
                  | (?<=\d)(?<!\w\d)\d\d/\d{3}-\d{4}
                # an area or a mobile network in brackets
                  | (?:(?<=\()|[ ]\() 0?\d{2,3}\)[ -]? (?:\d{4,5}[ -]\d{4} | \d{3}-\d\d-\d\d)
                ) (?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?
                # national with a trunk prefix
              | (?<=0) (?<![\w./:-]0) (?: \d(?:[ .-]\d\d){4} | 0?\d{2,4}[ ]\d{3,4}[ ]\d{3,4}
                | \d{2,4}[ ]\d{6,8} | \d{1,3}-\d{4}-\d{4} | \d\d[ ]\d{3}[ ]\d\d[ ]\d\d
                | 0[1-9]\d{0,2}[ -][1-9]\d{1,7}(?:[ -]\d{2,8}){1,3} )
            ) (?![\d.-]?\d) (?![A-Za-z_:])""",
            _is_phone,
        ),
        digits=6,
        leaks=(
            "call «(312) 555-0175» now",
            "is «+44 (20) 7123 4567», or",
            "reach «+91 4155550132»",
            "fax «91-415-555-0132»",
            "at «01 42 68 53 00» today",
            "at «07700 900123»",
            "tel «090-1234-5678»",
            "ring «044 123 45 67»",
            "«(11) 91234-5678» did not answer",
            "«8 (495) 123-45-67»",
            "wrong number «0049 30 901820»",
            "on «312/555-0175»",
        ),
        benign=(
            "2023-08-02 06:11:54,120 +0000",
            "version 1.2.3-4567",
            "12345678-1234-1234-1234-123456789012",
            "U+00E4 decomposes to 0061 0308",
        ),
    ),
    Rule(
        name="spoken-phone",
        reason="Ten digits may be an order's, but not where people say whom to call, 164.514(b)(2)(i)(D).",
        find=matching(
            r"""(?i:\b(?: tel\.[ ]?
              | (?:call|contact|phone|reach|ring|text)(?:ed|ing)?[ ]
                (?:[a-z]{1,12}[ ]){0,2} (?:at|on|under)[ ]
            )) (?P<secret> [2-9]\d\d[2-9]\d{6}) (?![\w-])""",
        ),
        words=_CALLING,
        digits=6,
        leaks=(
            "call me at «2125551234» today",
            "tel. «2125551234»",
            "reached the mother on «3125550175»",
        ),
        benign=(
            "order 2035550142",
            "call 2035550142 failed",
            "reached at 1767225600",
            "text at 20355501422",
        ),
    ),
    Rule(
        name="payment-card",
        reason="Account numbers, 164.514(b)(2)(i)(J); issuer range and Luhn checksum.",
        find=matching(
            r"""\d(?<![\w.].)(?<![\d.]-.)
            (?: \d{11,18} | \d{3}([ .-])\d{4}\1\d{4}\1\d{1,7} | \d{3}([ -])\d{6}\2\d{5} ) (?![\w-]|\.\d)""",
            _is_card,
        ),
        digits=6,
        leaks=(
            "charged «4539 7788 1122 3349» twice",
            "card «374411220097312».",
            "paid with «4539.7788.1122.3349»",
        ),
        benign=("at 1580525453123456", "elapsed 0.04997594399992522", "offset 4539778811223340"),
    ),
    Rule(
        name="iban",
        reason="International bank accounts, 164.514(b)(2)(i)(J); ISO 13616 checksum.",
        find=_find_ibans,
        digits=6,
        leaks=("pay «GB82 WEST 1234 5698 7654 32» today", "to «DE89370400440532013000»"),
        benign=("to GB83 WEST 1234 5698 7654 32",),
    ),
)

"""Identifiers of people that have a shape of their own: 45 CFR 164.514(b)(2) and its counterparts elsewhere.

Where a checksum exists it is checked. Shapes that ordinary numbers have too are hidden only where data
stands: as a whole quoted value, or as a whole message.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from techdeck_tasks.redaction import checksums
from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching
from techdeck_tasks.redaction.shapes import is_operational, is_uuid

_SEPARATORS = str.maketrans("", "", " -./()")
_MBI_LETTER = "AC-HJKMNP-RT-Y"
_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
        "224.0.0.0/4", "255.255.255.255/32", "255.0.0.0/8", "::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip


def _compact(value: str) -> str:
    return value.translate(_SEPARATORS)


def _checked(check: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda value: check(_compact(value))


def is_public_address(value: str) -> bool:
    """Tell whether `value` is an IP address that may identify someone; local ones are operational."""
    try:
        address = ipaddress.ip_address(value.strip(":") if value.count(":") == 1 else value)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return not any(address in network for network in _LOCAL_NETWORKS)


def _has_phone_digits(value: str) -> bool:
    return 8 <= sum(map(str.isdigit, value)) <= 15


def _find_addresses(subject: Subject) -> Iterator[Span]:
    """Yield each public IPv6 address, also one glued to a word."""
    if "::" not in subject.text and subject.text.count(":") < 7:  # noqa: PLR2004 - a full address has seven
        return
    for match in _IPV6.finditer(subject.text):
        candidate = match[0].rstrip(".")
        if candidate.endswith(":") and not candidate.endswith("::"):
            candidate = candidate[:-1]
        if any(map(str.isdigit, candidate)) and (is_public_address(candidate)):
            yield match.start(), match.start() + len(candidate)


_IPV6 = re.compile(
    r"(?<![0-9A-Fa-f:.])(?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:])[0-9A-Fa-f:]{3,45}+(?:(?<=[:0-9])[0-9.]{0,15}+)(?![0-9A-Za-z_])"
)
_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d\d[A-Z0-9 -]{11,44}+")


def _find_ibans(subject: Subject) -> Iterator[Span]:
    """Yield each IBAN, grouped or not, whatever follows it."""
    for match in _IBAN.finditer(subject.text):
        shown = match[0]
        length = checksums.iban_length(shown.replace(" ", "").replace("-", ""))
        if length:
            end = 0
            for _ in range(length):
                while shown[end] in " -":
                    end += 1
                end += 1
            if not shown[end : end + 1].isalnum():
                yield match.start(), match.start() + end


# A whole message, or a whole quoted value: "could not parse value '...'".
_QUOTED = re.compile(r"['\"(](?<![A-Za-z0-9].)(?P<value>[A-Za-z]{0,3}\d[\dA-Za-z -]{5,20}+)['\")]")
_RECORD = re.compile(r"\brecord for (?P<value>[A-Za-z]{0,3}\d[\dA-Za-z-]{5,20}+)")
_WHOLE = re.compile(r"\s*+['\"]?(?P<value>[A-Z]{0,3}\d[\d -]{5,90}[\dA-Z])['\"]?\s*+")
_DOCUMENT = re.compile(
    r"[A-Z]{1,2}\d{6,9}|\d{2}[A-Z]\d{5,6}|[A-Z]\d{2}[A-Z]\d{6}|[A-Z]{3}\d{6,9}|\d{8,9}[A-Z]"
)


def _is_document_number(value: str) -> bool:
    """Passports and licences: one to three letters and six or more digits; national numbers by checksum."""
    compact = _compact(value)
    if compact.isdecimal():
        return checksums.nhs_number(compact) or checksums.npi(compact) or checksums.aba_routing(compact)
    return _DOCUMENT.fullmatch(compact) is not None


def _find_bare_values(subject: Subject) -> Iterator[Span]:
    """Yield numbers that are nothing but data: the whole message, or the whole of a quoted value."""
    whole = _WHOLE.fullmatch(subject.text)
    if whole:
        if (
            not is_operational(whole["value"])
            and not is_uuid(whole["value"])
            and sum(map(str.isdigit, whole["value"])) >= 7
        ):
            yield whole.span("value")
        return
    for pattern in (_QUOTED, _RECORD) if "record for" in subject.folded else (_QUOTED,):
        for match in pattern.finditer(subject.text):
            if _is_document_number(match["value"]):
                yield match.span("value")


_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-])(?<![\w:-]...)[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
_CISCO_MAC = re.compile(r"[0-9A-Fa-f]{4}\.(?<![\w.].{5})[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w.])")
_SEPARATORS_IN_MAC = 5


def _find_mac_addresses(subject: Subject) -> Iterator[Span]:
    """Yield each MAC address, in the usual and in Cisco's notation."""
    text = subject.text
    if text.count(":") >= _SEPARATORS_IN_MAC or text.count("-") >= _SEPARATORS_IN_MAC:
        yield from (match.span() for match in _MAC.finditer(text))
    if text.count(".") > 1:
        yield from (match.span() for match in _CISCO_MAC.finditer(text))


IDENTIFIER_RULES: tuple[Rule, ...] = (
    Rule(
        name="email",
        reason="Electronic mail addresses, 164.514(b)(2)(i)(F).",
        find=matching(
            r"""(?<![\w.%+'-]) (?<!://) (?!(?:celery|git)@) (?P<secret> [\w.%+'-]{1,64}+ @ (?:[\w-]{1,63}+\.){1,8} (?:xn--[\w-]{1,59}|[^\W\d_]{2,63}) ) (?![\w])""",
        ),
        hints=("@",),
        leaks=("no mailbox «mia.k+x@example.org».", "to: «a@xn--d1acufc.xn--p1ai»"),
        benign=("git@github.com:org/repo", "celery@worker.example.org", "amqp://guest@rabbit.example.org"),
    ),
    Rule(
        name="spoken-email",
        reason="People write addresses with a word for the sign.",
        find=matching(
            r"(?i:\b[\w.+-]{1,64}+ [ ]?[\[(]?\bat\b[\])]?[ ] (?:gmail|googlemail|yahoo|hotmail|outlook|icloud|protonmail|proton|aol|gmx|live|msn)(?:\.|[ ]dot[ ])\w{2,3}\b)"
        ),
        words=(
            "gmail",
            "googlemail",
            "yahoo",
            "hotmail",
            "outlook",
            "icloud",
            "protonmail",
            "proton",
            "aol",
            "gmx",
            "live",
            "msn",
        ),
        leaks=("My address is «mia at gmail.com»",),
        benign=("connect at example.com", "error at gmail"),
    ),
    Rule(
        name="social-security-number",
        reason="Social security and taxpayer numbers, 164.514(b)(2)(i)(G).",
        find=matching(
            r"\d(?<![\w-].) (?:\d{2}([- .])\d{2}\1\d{4} | \d{4}-\d{4}(?=\D*\b(?i:ssn|itin)) ) (?![\w-])"
        ),
        digits=6,
        leaks=("row «078-05-1120» refused",),
        benign=("2024-03-15", "id 078-05-11201"),
    ),
    Rule(
        name="phone",
        reason="Telephone and fax numbers, 164.514(b)(2)(i)(D) and (E).",
        find=matching(
            r"""(?:
                \+ (?<![\w+]\+) (?: [1-9]\d{0,2} [ .-]? (?:\(\d{1,4}\)[ .-]?)? \d{1,5} (?:[ .-]?\d{1,5}){1,6}+ )
              | [\d(] (?<![\d.(]\d) (?<![\w)]\() (?<!\d-\d) (?: (?<=\() [2-9]?\d{2,3}\)[ .-]? | (?<=\d)\d{0,2}(?:[ .-]\(?[2-9]\d\d\)?)?[ .-] | (?<=\d)\d{0,2}[ .-]?\(\d{3}\)[ .-]? ) \d{3}[ .-]\d{4} (?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?
              | 0 (?<![\w.-]0) (?:\d(?:[ .]\d\d){4} | 0?\d{2,4}[ ]\d{3,4}[ ]\d{3,4})
            ) (?![\d.-]?\d) (?![A-Za-z_:])""",
            _has_phone_digits,
        ),
        digits=6,
        leaks=(
            "call «(415) 555-0132» now",
            "is «+44 (20) 7123 4567», or",
            "reach «+91 4155550132»",
            "fax «91-415-555-0132»",
            "at «01 42 68 53 00» today",
        ),
        benign=(
            "2020-01-30 05:43:41,755 +0000",
            "version 1.2.3-4567",
            "12345678-1234-1234-1234-123456789012",
        ),
    ),
    Rule(
        name="payment-card",
        reason="Account numbers, 164.514(b)(2)(i)(J); issuer range and Luhn checksum.",
        find=matching(
            r"\d(?<![\w.].)(?<![\d.]-.) (?: \d{11,18} | \d{3}([ -])\d{4}\1\d{4}\1\d{1,7} | \d{3}([ -])\d{6}\2\d{5} ) (?![\d-]|\.\d|\w)",
            _checked(checksums.payment_card),
        ),
        digits=6,
        leaks=("charged «4012 8888 8888 1881» twice", "card «378282246310005»."),
        benign=("at 1580525453123456", "elapsed 0.04997594399992522", "offset 4012888888881882"),
    ),
    Rule(
        name="iban",
        reason="International bank accounts, 164.514(b)(2)(i)(J); ISO 13616 checksum.",
        find=_find_ibans,
        digits=6,
        leaks=("pay «GB82 WEST 1234 5698 7654 32» today", "to «DE89370400440532013000»"),
        benign=("GB83 WEST 1234 5698 7654 32",),
    ),
    Rule(
        name="ipv4",
        reason="Internet addresses, 164.514(b)(2)(i)(O). Loopback, private and link-local ones identify nobody.",
        find=matching(
            r"\d(?<![\w.].)(?<![A-Za-z]/.)(?<!ersion\ .)\d{0,2}+(?:\.\d{1,3}+){3}(?![\w]|\.\d)",
            is_public_address,
        ),
        digits=6,
        leaks=("refused by «203.0.113.9»:443",),
        benign=("connecting to 127.0.0.1:5432", "peer 192.168.1.7", "version 8.30.11.2", "nginx/1.25.3.1"),
    ),
    Rule(
        name="ipv6",
        reason="Internet addresses, 164.514(b)(2)(i)(O).",
        find=_find_addresses,
        hints=(":",),
        digits=1,
        leaks=("bound to [«2001:db8::1»]:80",),
        benign=("listening on ::1", "at 10:00:00", "fe80::1", "select x::text", "std::vector"),
    ),
    Rule(
        name="mac-address",
        reason="Device identifiers, 164.514(b)(2)(i)(M).",
        find=_find_mac_addresses,
        digits=1,
        leaks=("device «01:23:45:67:89:AB»", "on «0012.3456.789A» up"),
        benign=("at 01:23:45", "8.8.8.8"),
    ),
    Rule(
        name="medicare-beneficiary",
        reason="Health plan beneficiary numbers, 164.514(b)(2)(i)(I).",
        find=matching(
            rf"[1-9](?<![\w-].)[{_MBI_LETTER}][{_MBI_LETTER}0-9]\d-?[{_MBI_LETTER}][{_MBI_LETTER}0-9]\d-?[{_MBI_LETTER}]{{2}}\d\d(?![\w-])"
        ),
        digits=1,
        leaks=("patient «1EG4-TE5-MK73» unknown", "«1EG4TE5MK73»"),
        benign=("1EG4-TE5", "0EG4-TE5-MK73"),
    ),
    Rule(
        name="licence-and-national-number",
        reason="Licences and unique numbers, 164.514(b)(2)(i)(K) and (R): shapes that nothing else has.",
        find=matching(
            r"""[A-Z0-9](?<![\w.-].)(?:
                (?<=[A-Z])[A-Z9]{4}[ ]?\d{3}[ ]?\d{3}[ ]?[A-Z][A-Z9][A-Z0-9]{3}(?:[ ]?\d\d)?        # DVLA
              | (?<=[A-CEGHJ-PR-TW-Z])[A-CEGHJ-NPR-TW-Z][ ]?\d\d[ ]?\d\d[ ]?\d\d[ ]?[A-D]          # NINO
              | (?<=\d)\d[ ]?[A-DF-SU-Z][ ]?\d{5}                                                  # TRN
              | (?<=[A-Z])[A-Z]{4}\d{4}[A-Z]                                                       # PAN
              | (?<=[A-Z])[A-Z]{5}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z]                              # codice fiscale
              | (?<=[A-Z])[A-Z]{3}\d{6}[HM][A-Z]{5}[A-Z0-9]\d                                      # CURP
              | (?<=[STFGM])\d{7}[A-Z]                                                             # NRIC, FIN
              | (?<=\d)\d{5}[-+A]\d{3}[0-9A-FHJ-NPR-Y]                                             # HETU
              | (?<=\d)\d{5}-[1-8]\d{6}                                                            # RRN
              | (?<=\d)\d\d\.\d{3}\.\d{3}-\d\d | (?<=\d)\d\.\d{3}\.\d{3}/\d{4}-\d\d                # CPF, CNPJ
            )(?![\w-])""",
        ),
        digits=6,
        leaks=(
            "No is «MORGA 753116 SM9IJ 01» ok",
            "ref «AA 12 34 56 B»",
            "pan «ABCPX1234Y»",
            "cpf «111.444.777-35»",
        ),
        benign=("ERROR 12345", "at 20240101T120000", "10.2.3.4-55"),
    ),
    Rule(
        name="lower-case-nino",
        reason="National insurance numbers are typed in lower case as well.",
        find=matching(
            r"[a-ceghj-pr-tw-z](?<![\w-].)[a-ceghj-npr-tw-z](?:[ ]\d\d[ ]\d\d[ ]\d\d[ ][a-dA-D]|\d{6}[a-dA-D])(?![\w-])",
            lambda value: re.search("[g-z ]", value) is not None,
        ),
        digits=6,
        leaks=("no «hh 01 02 03 d»", "«tw987654a»"),
        benign=("abc 123456a", "ab123456c"),
    ),
    Rule(
        name="checked-number",
        reason="Vehicles, DEA registrations, routing, provider and national numbers that carry a check digit.",
        find=matching(
            r"[A-Z0-9](?<![\w.-].)(?: [A-HJ-NPR-Z0-9]{16} | (?<=[A-Z])[A-Z9]\d{7} | (?<=[XYZ])\d{7}[A-Z] | (?<=\d)\d{7}-?[A-Z] | (?<=\d)\d{3}[ -]\d{4}[ -]\d{4} | (?<=\d)\d{3}[ -]\d{3}[ -]\d{3} | (?<=\d)\d{3}-\d{4}-\d | (?<=\d)\d\d[ -]\d{3}[ -]\d{3,4} ) (?![\w-])",
            lambda value: _has_check_digit(_compact(value)),
        ),
        digits=6,
        leaks=(
            "vehicle «1HGCM82633A004352»",
            "npi «1234 567 893»",
            "routing «3222-7162-7»",
            "dea «BB1388568»",
        ),
        benign=("car 1HGCM82643A004352", "got 1234 567 894"),
    ),
    Rule(
        name="bare-value",
        reason="A message or quoted value that is a document number and nothing else is data, not a sentence.",
        find=_find_bare_values,
        digits=6,
        leaks=(
            "«H12234567»",
            "could not parse value '«A12803456»' in column",
            "exporting record for «0032698674»",
            "«945456787654»",
        ),
        benign=("2024-03-15", "took '123456789'", "error 12345678 of 9"),
    ),
)


def _has_check_digit(compact: str) -> bool:
    if compact.isdecimal():
        if len(compact) == 12:
            return compact[0] not in "01" and checksums.verhoeff(compact)
        return checksums.npi(compact) or checksums.nhs_number(compact) or checksums.aba_routing(compact)
    if len(compact) == 17:
        return sum(map(str.isdigit, compact)) >= 4 and checksums.vin(compact)
    return checksums.dea_number(compact) or (len(compact) == 9 and checksums.spanish_id(compact))

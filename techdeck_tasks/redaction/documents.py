"""Numbers of documents that have a shape of their own: licences, plans, national numbers, vehicles.

Where a checksum exists it is checked. Shapes that ordinary numbers have too are hidden only where data
stands: as a whole quoted value, or as a whole message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import checksums
from techdeck_tasks.redaction.rule import Rule, Span, Subject, matching
from techdeck_tasks.redaction.shapes import is_hash, is_operational, is_uuid

_SEPARATORS = str.maketrans("", "", " -./()")
_MBI = "AC-HJKMNP-RT-Y"  # the letters of a Medicare beneficiary identifier
_LEAST_DIGITS = 7
_AADHAAR_DIGITS = 12
_VIN_CHARS = 17
_SPANISH_CHARS = 9

_QUOTED = re.compile(r"['\"(](?<![A-Za-z0-9].)(?P<value>[A-Za-z]{0,3}\d[\dA-Za-z -]{5,20}+)['\")]")
_RECORD = re.compile(r"\brecord for (?P<value>[A-Za-z]{0,3}\d[\dA-Za-z-]{5,20}+)")
_WHOLE = re.compile(r"\s*+['\"]?(?P<value>[A-Z]{0,3}\d[\d -]{5,90}[\dA-Z])['\"]?\s*+")
_LOWER_CASE_NINO = re.compile(
    r"""\d (?:
        (?<=[a-ceghj-pr-tw-z][a-ceghj-npr-tw-z]\d) (?<![\w-]..\d) \d{5}[a-dA-D]
      | (?P<spaced> (?<=[a-ceghj-pr-tw-z][a-ceghj-npr-tw-z][ ]\d) (?<![\w-]...\d)
        \d[ ]\d\d[ ]\d\d[ ][a-dA-D] )
    )(?![\w-])""",
    re.VERBOSE,
)
# Letters and digits of a licence, plate or card as a whole message; letters and a number alone are codes.
_WHOLE_CODE = re.compile(r"\s*+['\"]?(?P<value>[A-Z0-9(][A-Z0-9 ./()-]{5,80}[A-Z0-9)])['\"]?\s*+")
_PUBLISHED = re.compile(
    r"(?:[A-Z]+[- ]?\d+|(?:CVE|RFC|ISO|PEP|SQLSTATE|ORA)\W.*|\d+T\d+Z?|[0-9A-F]{2,8}(?: [0-9A-F]{2,8}){2,})"
)
_WHOLE_CODE_DIGITS, _LONGEST_WORD = 6, 5
_SPACED = re.compile(r"\d{1,6}(?: \d{1,6}){1,6}")
_SPACED_DIGITS = 8
_LETTERED = re.compile(r"[A-Z]{1,3}\d{6,9}|\d{2}[A-Z]\d{5,6}|[A-Z]\d{2}[A-Z]\d{6}|\d{8,9}[A-Z]")


def _is_document_number(value: str) -> bool:
    """One to three letters and six or more digits, or a national number by its checksum."""
    compact = value.translate(_SEPARATORS)
    if compact.isdecimal():
        if len(compact) >= _SPACED_DIGITS and _SPACED.fullmatch(value):
            return True
        return checksums.nhs_number(compact) or checksums.npi(compact) or checksums.aba_routing(compact)
    return _LETTERED.fullmatch(compact) is not None and not compact.startswith("ISO")


def _has_check_digit(value: str) -> bool:
    compact = value.translate(_SEPARATORS)
    if compact.isdecimal():
        if len(compact) == _AADHAAR_DIGITS:
            return compact[0] not in "01" and checksums.verhoeff(compact)
        return checksums.npi(compact) or checksums.nhs_number(compact) or checksums.aba_routing(compact)
    if len(compact) == _VIN_CHARS:
        return checksums.vin(compact)
    return checksums.dea_number(compact) or (len(compact) == _SPANISH_CHARS and checksums.spanish_id(compact))


def _find_lower_case_nino(subject: Subject) -> Iterator[Span]:
    """Yield each; looked for from its first digit, as letters are everywhere."""
    for match in _LOWER_CASE_NINO.finditer(subject.text):
        start = match.start() - (3 if match["spaced"] else 2)
        if re.search("[g-z ]", subject.text[start : match.end()]):  # else it may be a hash
            yield start, match.end()


def _is_code(value: str) -> bool:
    """Tell whether a whole message of capitals and digits is a document's number and no error code."""
    digits = sum(map(str.isdigit, value))
    words = re.findall("[A-Z]+", value)
    return (
        digits >= _WHOLE_CODE_DIGITS
        and max(map(len, words), default=0) <= _LONGEST_WORD
        and not (_PUBLISHED.fullmatch(value) or is_operational(value) or is_uuid(value) or is_hash(value))
    )


def _find_bare_values(subject: Subject) -> Iterator[Span]:
    """Yield numbers that are nothing but data: the whole message, or the whole of a quoted value."""
    whole = _WHOLE.fullmatch(subject.text)
    if whole:
        value = whole["value"]
        if sum(map(str.isdigit, value)) >= _LEAST_DIGITS and not is_operational(value) and not is_uuid(value):
            yield whole.span("value")
        return
    code = _WHOLE_CODE.fullmatch(subject.text)
    if code:
        if _is_code(code["value"]):
            yield code.span("value")
        return
    for match in _QUOTED.finditer(subject.text):
        if _is_document_number(match["value"]):
            yield match.span("value")
    if "record for" in subject.folded:
        yield from (
            match.span("value") for match in _RECORD.finditer(subject.text) if not is_uuid(match["value"])
        )


DOCUMENT_RULES: tuple[Rule, ...] = (
    Rule(
        name="medicare-beneficiary",
        reason="Health plan beneficiary numbers, 164.514(b)(2)(i)(I).",
        find=matching(
            rf"[1-9](?<![\w-].) [{_MBI}][{_MBI}0-9]\d-? [{_MBI}][{_MBI}0-9]\d-? [{_MBI}]{{2}}\d\d (?![\w-])"
        ),
        digits=1,
        leaks=("patient «4KD7-QH2-XW19» unknown", "«4KD7QH2XW19»"),
        benign=("4KD7-QH2", "0KD7-QH2-XW19"),
    ),
    Rule(
        name="licence-or-national-number",
        reason="Licences and unique numbers, 164.514(b)(2)(i)(K) and (R): shapes that nothing else has.",
        find=matching(
            r"""[A-Z0-9](?<![\w.-].)(?:
                (?<=[A-Z])[A-Z9]{4}[ ]?\d{3}[ ]?\d{3}[ ]?[A-Z][A-Z9][A-Z0-9]{3}(?:[ ]?\d\d)?       # DVLA
              | (?<=[A-CEGHJ-PR-TW-Z])[A-CEGHJ-NPR-TW-Z][ ]?\d\d[ ]?\d\d[ ]?\d\d[ ]?[A-D]         # NINO
              | (?<=\d)\d[ ]?[A-DF-SU-Z][ ]?\d{5}                                                 # TRN
              | (?<=[A-Z])[A-Z]{4}\d{4}[A-Z]                                                      # PAN
              | (?<=[A-Z])[A-Z]{5}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z]                         # codice fiscale
              | (?<=[A-Z])[A-Z]{3}\d{6}[HM][A-Z]{5}[A-Z0-9]\d                                     # CURP
              | (?<=[STFGM])\d{7}[A-Z]                                                            # NRIC, FIN
              | (?<=\d)\d{5}[-+A]\d{3}[0-9A-FHJ-NPR-Y]                                            # HETU
              | (?<=\d)\d{5}-[1-8]\d{6}                                                           # RRN
              | (?<=\d)\d\d\.\d{3}\.\d{3}-\d\d | (?<=\d)\d\.\d{3}\.\d{3}/\d{4}-\d\d               # CPF, CNPJ
            )(?![\w-])""",
        ),
        digits=3,
        leaks=(
            "No is «MORGA 753116 SM9IJ 01» ok",
            "ref «AA 12 34 56 B»",
            "for «ABCPX1234Y»",
            "cpf «111.444.777-35»",
        ),
        benign=("ERROR 12345", "at 20240101T120000", "at 10.2.3.4-55"),
    ),
    Rule(
        name="lower-case-national-insurance-number",
        reason="National insurance numbers are typed in lower case as well.",
        find=_find_lower_case_nino,
        digits=6,
        leaks=("no «hh 01 02 03 d»", "«tw987654a»"),
        benign=("abc 123456a", "ab123456c"),
    ),
    Rule(
        name="checked-number",
        reason="Vehicle, DEA, routing, provider and national numbers that carry a check digit.",
        find=matching(
            r"""[A-Z0-9](?<![\w.-].)(?:
                [A-HJ-NPR-Z0-9]{16}                                                       # VIN
              | (?<=[A-Z])[A-Z9]\d{7} | (?<=[XYZ])\d{7}[A-Z] | (?<=\d)\d{7}-?[A-Z]        # DEA, NIE, NIF
              | (?<=\d)\d{3}[ -]\d{4}[ -]\d{4} | (?<=\d)\d{3}[ -]\d{3}[ -]\d{3}           # Aadhaar, NPI
              | (?<=\d)\d{3}-\d{4}-\d | (?<=\d)\d\d[ -]\d{3}[ -]\d{3,4}                   # routing, NHS
            )(?![\w-])""",
            _has_check_digit,
        ),
        digits=6,
        leaks=("car «1HGCM82633A004352»", "npi «1987 654 328»", "routing «3222-7162-7»", "dea «BB1388568»"),
        benign=("car 1HGCM82643A004352", "got 1987 654 329"),
    ),
    Rule(
        name="bare-value",
        reason="A message or quoted value that is a document number and nothing else is data.",
        find=_find_bare_values,
        digits=6,
        leaks=(
            "«T40551827»",
            "could not parse value '«K40217739»' in column",
            "exporting record for «4028819318»",
            "«402938475610»",
            "«MH12AB123456»",
            "'«65 170839 J 003»'",
            "«(01)00844588003288(17)141120(21)10987»",
            "KeyError: '«51 824 753 556»'",
            "('«912 345 678»', 'x')",
        ),
        benign=(
            "2024-03-15",
            "took '123456789'",
            "error 12345678 of 9",
            "codec 'ISO885913'",
            "CVE-2024-123456",
            "20240101T120000Z",
            "5159 515B 515E 515D 5161",
        ),
    ),
)

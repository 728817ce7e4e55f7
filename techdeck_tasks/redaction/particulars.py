"""Particulars of a person that only their label gives away: record numbers, dates, names, addresses.

45 CFR 164.514(b)(2)(i)(A) to (C) and (H) to (M). A label and what joins it to its value, then a value of the
label's kind. Years, log timestamps and dates without such a label are operational and stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from techdeck_tasks.redaction.rule import Rule, anchored, matching
from techdeck_tasks.redaction.shapes import is_hex, is_prose, is_state, is_trivial, is_uuid

_QUOTE = r"(?:\\{0,8}[\"'`])?"
# What stands between a label and its value: "number is", ": ", "=", "['", " no. #".
_JOINT = rf"""{_QUOTE}\]?(?:[ _-]?(?:number|num|no\.?|nr\.?|code|identifier|value|\#)(?![a-z]))?{_QUOTE}\]?\s{{0,4}}
    (?:(?:is|was|are|of|for|on|at|:=|[:=\#]|=>|\()\s{{0,4}}){{0,2}}{_QUOTE}\s{{0,2}}"""

_NUMBERED = r"""(?:
    mrn | med(?:ical)?[ _-]?rec(?:ord)? | mbi | hicn | ohip | medicare | medicaid
  | (?:patient|member|subscriber|beneficiary|enrollee|insured|policy|policy[ _-]?holder|claim|chart|encounter|insurance|health[ _-]?(?:plan|insurance|card))
    [ _-]?(?:id|plan|account|card|beneficiary|number|num|no\.?|\#|identifier)(?:[ _-]?(?:id|beneficiary))?
  | (?:bank[ _-]?|checking[ _-]?|savings[ _-]?|billing[ _-]?|patient[ _-]?)?acc(?:oun)?t(?:[ _-]?id)? | iban | routing | sort[ _-]?code | swift | bsb
  | certificate | licen[cs]e(?:[ _-]?plate)? | driv(?:er|ing)'?s?[ _-]?licen[cs]e | dl | dvla | plate | registration
  | passport | travel[ _-]?document | national[ _-]?(?:id|insurance) | voter[ _-]?id | identity[ _-]?card | id[ _-]?card | residence[ _-]?permit
  | vin | vehicle(?:[ _-]?(?:id|identification|registration|serial))? | serial | device[ _-]?(?:id|serial) | imei | imsi | meid | iccid | udi | pacemaker | implant
  | npi | dea | upin | ssn | social[ _-]?security | itin | ein | tax(?:payer)?[ _-]?(?:id|file)? | nhs | nino | paye(?:[ ]temp(?:orary)?)? | utr | aadhaa?r | pan | abn | acn | tfn
  | nric | cpf | cnpj | pesel | bsn | personnummer | curp | steuer-?id | codice[ _-]?fiscale | nif | nie | rrn | cnic | nin
  | (?:credit|debit|payment)?[ _-]?card | cc | ccn | pan | cvv | phone | telephone | tel | mobile | cell | fax | pager | whatsapp | sms | biometric | fingerprint
)"""

_MONTH = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
_DATE = rf"""(?:
    \d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}(?:[t ]\d\d:\d\d(?::\d\d(?:\.\d{{1,9}})?)?[ ]?(?:z|[+-]\d\d:?\d\d)?)?
  | \d{{1,2}}(?:st|nd|rd|th)?[ ./-]{{0,2}}(?:of[ ])?{_MONTH}(?:[ ,./-]{{1,2}}\d{{2,4}})?
  | {_MONTH}[ .-]{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?(?:,?[ -]\d{{2,4}})? | {_MONTH}[ ,/-]{{1,2}}\d{{4}}
  | (?:19|20)\d{{6}} | \d{{1,2}}[-/]\d{{2,4}} | (?:18|19|20)\d\d )(?![\w])"""
_DATED = r"""(?:
    dob | d\.o\.b\.? | date[ _-]?of[ _-]?(?:birth|death|service|admission|discharge|visit|diagnosis|procedure|surgery|onset|injury|exam)
  | birth[ _-]?da(?:te|y) | born(?:[ ]on)? | bday
  | (?:admi(?:t(?:ted)?|ssion)|discharged?|death|died|deceased|service|encounter|visit|appointment|surgery|procedure|exam|treatment|diagnos(?:is|ed)|treated|seen|immuni[sz]ation|vaccination)
    (?:[ _-]?(?:date|day|on|dt))? (?:[ _-]?(?:time|at))?
  | dos | dod | today
)"""


_MEASURE = re.compile(
    r"v?\d+(?:\.\d+)+|\d{4}-\d\d-\d\d.*|0x.*|\d+(?:ms|s|kb|mb|gb|%)", re.IGNORECASE | re.DOTALL
)


def _is_number(value: str) -> bool:
    digits = sum(map(str.isdigit, value))
    if digits < 3 or digits * 3 < len(value.replace(" ", "")) or _MEASURE.fullmatch(value):  # noqa: PLR2004
        return False
    return not is_uuid(value) and not (is_hex(value) and len(value) >= 32)


def _is_name(value: str) -> bool:
    return not (is_trivial(value) or is_prose(value) or is_state(value.split()[0]))


# Words that the labels begin with, alone or as part of a name without separators.
_NUMBER_WORDS = (
    "mrn", "med", "medical", "medicare", "medicaid", "mbi", "hicn", "patient", "patientid", "member", "memberid", "subscriber",
    "subscriberid", "beneficiary", "beneficiaryid", "enrollee", "insured", "insurance", "policy", "policyid", "policynumber",
    "claim", "claimid", "chart", "health", "healthplan", "account", "accountnumber", "accountno", "acct", "bank", "billing",
    "checking", "savings", "iban", "routing", "sort", "swift", "certificate", "licence", "license", "driver", "drivers",
    "driving", "dvla", "plate", "passport", "passportnumber", "travel", "national", "nationalid", "voter", "identity",
    "vin", "vehicle", "serial", "serialnumber", "device", "deviceid", "imei", "imsi", "meid", "iccid", "udi", "implant",
    "pacemaker", "npi", "dea", "upin", "ssn", "social", "itin", "ein", "tax", "taxid", "nhs", "nino", "paye", "utr", "aadhaar",
    "aadhar", "pan", "abn", "acn", "tfn", "nric", "cpf", "cnpj", "pesel", "bsn", "curp", "nif", "nie", "rrn", "cnic", "nin",
    "card", "credit", "debit", "cardnumber", "creditcard", "ccn", "phone", "phonenumber", "telephone", "tel", "mobile",
    "cell", "fax", "pager", "whatsapp", "sms", "fingerprint",
)  # fmt: skip
_DATE_WORDS = (
    "dob", "date", "dateofbirth", "birth", "birthdate", "birthday", "born", "bday", "admit", "admitted", "admission", "discharge",
    "discharged", "death", "died", "deceased", "service", "encounter", "visit", "appointment", "surgery", "procedure",
    "exam", "treatment", "treated", "diagnosis", "diagnosed", "seen", "immunization", "immunisation", "vaccination",
    "dos", "dod", "today", "admissiondate", "dischargedate", "deathdate",
)  # fmt: skip
_NAME_WORDS = ("name", "holder", "surname", "patientname", "membername", "firstname", "lastname", "fullname", "middlename", "maidenname", "givenname", "familyname", "legalname")  # fmt: skip


PARTICULAR_RULES: tuple[Rule, ...] = (
    Rule(
        name="labelled-number",
        reason="Record, plan, account, certificate, licence, vehicle and device numbers, 164.514(b)(2)(i)(H) to (M).",
        find=anchored(
            _NUMBER_WORDS,
            rf"(?:(?<![a-z0-9]) {_NUMBERED}(?![a-z]) {_JOINT} (?P<secret> (?:[a-z]{{2,5}}(?=[ ]\d))? [ ]? \(?\+?(?=[\w-]{{0,8}}\d)[a-z0-9][\w./-]{{2,40}}(?<=\w) (?:[ -]{{1,2}}[a-z]{{0,4}}\d[\w/-]{{0,20}}){{0,5}}+ ))",
            _is_number,
        ),
        words=_NUMBER_WORDS,
        digits=3,
        leaks=(
            "MRN: «00451278»",
            '{"member_id": "«XK-55120»"}',
            "account number «4471 2290» closed",
            "driver's licence no. «D450-7891»",
            "my travel document is «A12803456»",
            "device serial «SN-889-201»",
        ),
        benign=(
            "account 12 locked",
            "license expired 2024-03-15",
            "patient id missing",
            "serial 5",
            "certificate verify failed (_ssl.c:1007)",
        ),
    ),
    Rule(
        name="stated-number",
        reason="In prose people say what a number is: 'the number is ...'.",
        find=matching(
            r"(?i:\b(?:number|licen[cs]e|document|passport|id[ ]card)[ ](?:is|was)[ ]:? (?P<secret>(?:[a-z]{2,5}[ ])?[a-z]{0,3}\d[\w./-]{3,30}(?:[ -][a-z]{0,4}\d[\w/-]{0,12}){0,4}+))",
            _is_number,
        ),
        digits=3,
        words=("number", "license", "licence", "document", "passport", "card"),
        leaks=("The number is «11A 12345».",),
        benign=("the number is 5", "line number is 120"),
    ),
    Rule(
        name="labelled-date",
        reason="Dates of birth, admission, discharge, service and death, 164.514(b)(2)(i)(C).",
        find=anchored(_DATE_WORDS, rf"(?<![a-z0-9]) {_DATED} {_JOINT} (?P<secret>{_DATE})"),
        words=_DATE_WORDS,
        digits=1,
        leaks=(
            "DOB: «02.12.1979»",
            '{"birth_date": "«1979-12-02»"}',
            "admitted on «3 March 2021» and",
            "date of service «03/04/2021»",
            "Today is «2021-03-04T05:06:07Z», or not",
        ),
        benign=(
            "2020-06-23T16:53:24Z app[worker.2]: failed",
            "service 12 failed",
            'date/time field value out of range: "2024-02-31"',
            "procedure 17 not found",
        ),
    ),
    Rule(
        name="labelled-name",
        reason="Names of patients, 164.514(b)(2)(i)(A), where a field is plainly called so.",
        find=matching(
            rf"""(?i:(?<![a-z0-9]) (?: (?:patient|member|subscriber|beneficiary|insured|guarantor|guardian|next[ _-]?of[ _-]?kin|physician|doctor|provider|customer|client|employee
                |first|last|full|middle|maiden|given|family|sur|legal|preferred|mother'?s[ _-]maiden) [ _-]? name | surname | (?:contact|account)[ _-]holder )
            {_QUOTE}\]? \s{{0,4}} (?:[:=]|=>|\bis\b) \s{{0,4}} (?P<quote>{_QUOTE}) )
            (?P<secret> [^\W\d_][^\s"'`,;:=<>()\[\]{{}}\\]{{0,40}}+ (?:[ ](?:[^\W\d_]\.|(?![a-z]{{1,20}}\b(?<!van)(?<!de)(?<!von))[^\W\d_][^\s"'`,;:=<>()\[\]{{}}\\]{{0,40}})){{0,4}}+ )""",
            _is_name,
        ),
        words=_NAME_WORDS,
        leaks=("patient name: «Mia Kay» admitted", "{'first_name': '«Mia»', 'age': 4}"),
        benign=("hostname: db", "full_name: field required", "last_name=None", "filename: x"),
    ),
    Rule(
        name="labelled-address",
        reason="Geographic subdivisions smaller than a state, 164.514(b)(2)(i)(B), where a field is plainly called so.",
        find=matching(
            rf"""(?i:(?<![a-z0-9]) (?: (?: (?:street|home|postal|mailing|residential|billing|shipping|patient)[ _-]?address | address(?:[ _-]?line)?[ _-]?[12]? ) {_QUOTE}\]?
                \s{{0,4}}(?:[:=]|=>|\bis\b)\s{{0,4}}{_QUOTE} (?P<secret>\d{{1,6}}[a-z]?[ ][^\n"'`;{{}}<>\\]{{3,80}}+) ))""",
        ),
        words=("address", "homeaddress", "streetaddress"),
        digits=1,
        leaks=("address: «12 Elm Street, Springfield»",),
        benign=("address: 0.0.0.0:8000", "address already in use", "address=10"),
    ),
    Rule(
        name="labelled-postcode",
        reason="Postal codes, 164.514(b)(2)(i)(B).",
        find=matching(
            rf"(?i:(?<![a-z0-9]) (?:zip(?:[ _-]?code)?|post(?:al)?[ _-]?code) {_QUOTE}\]? \s{{0,4}}(?:[:=]|=>|\bis\b)\s{{0,4}}{_QUOTE} (?P<secret>\d{{5}}(?:-\d{{4}})?|[a-z]{{1,2}}\d[a-z\d]?[ ]?\d[a-z]{{2}})(?!\w))",
        ),
        words=("zip", "zipcode", "post", "postal", "postcode", "postalcode"),
        digits=1,
        leaks=("zip: «02139-1234»", '"postal_code": "«SW1A 1AA»"'),
        benign=("zip: 3 files", "post: 200"),
    ),
)

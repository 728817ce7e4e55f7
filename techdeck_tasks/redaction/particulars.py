"""Particulars of a person that only their label gives away: record numbers, dates, names, addresses.

45 CFR 164.514(b)(2)(i)(A) to (C) and (H) to (M). A label, what joins it to its value, then a value of the
label's kind. Years, log timestamps and dates without such a label are operational and stay.
"""

from __future__ import annotations

import re

from techdeck_tasks.redaction.rule import Rule, anchored, matching
from techdeck_tasks.redaction.shapes import is_hash, is_prose, is_state, is_trivial, is_uuid

_QUOTE = r"""(?:\\{0,32}["'`])?"""
# What stands between a label and its value: "number is", ": ", "=", "['", " no. #".
JOINT = rf"""{_QUOTE}\]? (?:[ _-]?(?:number|num|no\.?|nr\.?|id|code|identifier|value|\#)(?![a-z]))?
    {_QUOTE}\]? \s{{0,4}}
    (?:(?:is|was|are|of|for|on|at|:=|[:=\#]|=>|\()\s{{0,4}}){{0,2}} {_QUOTE}\s{{0,2}}
    (?:(?:datetime\.|pd\.|pendulum\.)?(?:date|datetime|timestamp)\(['"]?)?"""
_FIELD_JOINT = rf"{_QUOTE}\]? \s{{0,4}} (?:[:=]|=>|\bis\b) \s{{0,4}} {_QUOTE}"

_NUMBERED = r"""(?:
    mrn | med(?:ical)?[ _-]?rec(?:ord)? | mbi | hicn | ohip | medicare | medicaid
  | (?:patient|member|subscriber|beneficiary|enrollee|insured|policy|policy[ _-]?holder|claim|chart|encounter
      |insurance|health[ _-]?(?:plan|insurance|card))
    [ _-]?(?:id|plan|account|card|beneficiary|number|num|no\.?|\#|identifier)(?:[ _-]?(?:id|beneficiary))?
  | (?:(?:bank|checking|savings|billing|patient)[ _-]?)?acc(?:oun)?t(?:[ _-]?id)? | iban | routing
  | sort[ _-]?code | swift | certificate | (?:driv(?:er|ing)'?s?[ _-]?)?licen[cs]e(?:[ _-]?plate)? | dvla
  | plate | passport | travel[ _-]?document | national[ _-]?(?:id|insurance) | voter[ _-]?id
  | (?:identity|id)[ _-]?card
  | vin | vehicle(?:[ _-]?(?:id|identification|registration|serial))? | serial | device[ _-]?(?:id|serial)
  | imei | imsi | meid | iccid | udi | implant | pacemaker | npi | dea | upin
  | ssn | social[ _-]?security | itin | ein | tax(?:payer)?[ _-]?(?:id|file)? | nhs | nino
  | paye(?:[ ]temp(?:orary)?)? | utr | aadhaa?r | pan | abn | acn | tfn | nric | cpf | cnpj | pesel | bsn
  | curp | nif | nie | rrn | cnic | nin | insee | nir | cnp | egn | avs | ahv | nss | tin | rut | cuit | cuil
  | dni | afm | amka | hkid | tckn | ppsn? | csn | dl(?=[ ]?(?:no|num|\#))
  | (?:hospital|accession|group|social[ _-]?insurance)[ _-]?(?:number|num|no\.?|\#)
  | (?:(?:credit|debit)[ _-]?)?card | ccn | (?:tele)?phone | tel | mobile | cell | fax | pager
  | whatsapp | sms | fingerprint
)(?![a-z])"""
# The words that those labels begin with, alone or in names without separators.
_NUMBER_WORDS = (
    "aadhaar", "aadhar", "abn", "accession", "account", "accountid", "accountno", "accountnumber", "acct",
    "acn", "afm", "ahv", "amka", "avs", "bank", "beneficiary", "beneficiaryid", "billing", "bsn", "card",
    "cardnumber", "ccn", "cell", "certificate", "chart", "checking", "claim", "claimid", "cnic", "cnp",
    "cnpj", "cpf", "credit", "creditcard", "csn", "cuil", "cuit", "curp", "dea", "debit", "device",
    "deviceid", "dl", "dni", "driver", "drivers", "driving", "dvla", "egn", "ein", "encounter",
    "enrollee", "fax", "fingerprint", "group", "health", "healthplan", "hicn", "hkid", "hospital", "iban",
    "iccid", "id", "insee", "identity", "imei", "implant", "imsi", "insurance", "insured", "itin",
    "licence", "license", "mbi", "med", "medicaid", "medical", "medicare", "meid", "member", "memberid",
    "mobile", "mrn", "national", "nationalid", "nhs", "nie", "nif", "nin", "nino", "nir", "npi", "nric",
    "nss", "ohip", "pacemaker", "pager", "pan", "passport", "passportnumber", "patient", "patientid",
    "paye", "pesel", "phone", "phonenumber", "plate", "policy", "policyid", "policynumber", "pps", "ppsn",
    "routing", "rrn", "rut", "savings", "serial", "serialnumber", "sms", "social", "sort", "ssn",
    "subscriber", "subscriberid", "swift", "tax", "taxid", "taxpayer", "tckn", "tel", "telephone", "tfn",
    "tin", "travel", "udi", "upin", "utr", "vehicle", "vin", "voter", "whatsapp",
)  # fmt: skip
NUMBER = r"""(?: (?:[a-z]{2,5}(?=[ ]\d))? [ ]? \(?\+? (?=[\w-]{0,8}\d)
    (?: [a-z0-9][\w./-]{2,40}(?<=\w) | \d{1,2}(?=[ -]{1,2}\d\d) )
    (?:[ -]{1,2}[a-z]{0,4}\d[\w/-]{0,20}){0,7}+ )"""
_MEASURE = re.compile(
    r"v?\d+(?:\.\d+)+|\d{4}-\d\d-\d\d.*|0x.*|\d+(?:ms|s|kb|mb|gb|%)", re.IGNORECASE | re.DOTALL
)
# The AVS number of Switzerland and the Rijksregisternummer of Belgium look like versions.
_DOTTED_ID = re.compile(r"\d{3}\.\d{4}\.\d{4}\.\d\d|\d{2}\.\d{2}\.\d{2}[.-]\d{3}[.-]\d{2}")
_LEAST_DIGITS = 3
_LEAST_DIGITS_WITHOUT_LABEL = 5

_DATED = r"""(?:
    dob | d\.o\.b\.? | dos | dod | bday | today | born(?:[ ]on)? | birth[ _-]?da(?:te|y)
  | date[ _-]?of[ _-]?(?:birth|death|service|admission|discharge|visit|diagnosis|procedure|surgery|onset
      |injury|exam)
  | (?:admi(?:t(?:ted)?|ssion)|discharged?|death|died|deceased|service|encounter|visit|appointment|surgery
      |procedure|exam|treatment|treated|diagnos(?:is|ed)|seen|immuni[sz]ation|vaccination)
    (?:[ _-]?(?:date|day|on|dt))? (?:[ _-]?(?:time|at))?
)"""
_DATE_WORDS = (
    "admission", "admissiondate", "admit", "admitted", "appointment", "bday", "birth", "birthdate",
    "birthday", "born", "date", "dateofbirth", "death", "deathdate", "deceased", "diagnosed", "diagnosis",
    "died", "discharge", "discharged", "dischargedate", "dob", "dod", "dos", "encounter", "exam",
    "immunisation", "immunization", "procedure", "seen", "service", "surgery", "today", "treated",
    "treatment", "vaccination", "visit",
)  # fmt: skip
_MONTH = r"""(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?
    |oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"""
_MONTH_ABROAD = r"(?:de[ ])?[^\W\d_]{3,10}\.?(?:[ ]de)?"
DATE = rf"""(?:
    \d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}
    (?:[t ]\d\d:\d\d(?::\d\d(?:\.\d{{1,9}})?)?[ ]?(?:z|[+-]\d\d:?\d\d)?)?
  | \d{{1,2}}(?:st|nd|rd|th)?[ ./-]{{0,2}}(?:of[ ])?{_MONTH}(?:[ ,./-]{{1,2}}\d{{2,4}})?
  | {_MONTH}[ .-]{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?(?:,?[ -]\d{{2,4}})? | {_MONTH}[ ,/-]{{1,2}}\d{{4}}
  | \d{{1,2}}(?:\.|er|º)?[ ]{_MONTH_ABROAD}[ ](?:19|20)\d\d | (?:19|20)\d\d(?:,[ ]\d{{1,2}}){{2,6}}
  | (?:19|20)\d{{6}} | \d{{1,2}}[-/]\d{{2,4}} | (?:18|19|20)\d\d
)(?!\w)"""

_NAME_OWNERS = (
    "beneficiary|client|customer|doctor|employee|family|first|full|given|guarantor|guardian|insured|last|legal"
    "|maiden|member|middle|patient|physician|preferred|provider|subscriber|next[ _-]?of[ _-]?kin|sur"
)
_NAME_WORDS = (
    "familyname", "firstname", "fullname", "givenname", "lastname", "legalname", "maidenname",
    "membername", "middlename", "name", "patientname", "surname",
)  # fmt: skip
_KIN = r"next[ _-]?of[ _-]?kin|emergency[ _-]?contact|mother|father|guardian|spouse|husband|wife"
_KIN_WORDS = (
    "contact", "emergencycontact", "father", "guardian", "husband", "kin", "mother", "nextofkin", "spouse",
    "wife",
)  # fmt: skip
_NAME_PART = (
    r"""[^\W\d_][^\s"`,;:=<>()\[\]{}\\']{0,40}+(?:'(?=[^\W\d_]{2})[^\s"`,;:=<>()\[\]{}\\']{0,40}+)?"""
)


def is_number(value: str) -> bool:
    """Tell whether what stands behind a label is a number of somebody, and no measure, version or hash."""
    digits = sum(map(str.isdigit, value))
    if digits < _LEAST_DIGITS or digits * 3 < len(value.replace(" ", "")):
        return False
    if _MEASURE.fullmatch(value) and not _DOTTED_ID.fullmatch(value):
        return False
    return not (is_uuid(value) or is_hash(value))


def _is_long_number(value: str) -> bool:
    return is_number(value) and sum(map(str.isdigit, value)) >= _LEAST_DIGITS_WITHOUT_LABEL


def _is_name(value: str) -> bool:
    return not (is_trivial(value) or is_prose(value) or is_state(value.split(maxsplit=1)[0]))


PARTICULAR_RULES: tuple[Rule, ...] = (
    Rule(
        name="labelled-number",
        reason="Record, plan, account, licence, vehicle and device numbers, 164.514(b)(2)(i)(H) to (M).",
        find=anchored(_NUMBER_WORDS, rf"(?<![a-z0-9]) {_NUMBERED} {JOINT} (?P<secret>{NUMBER})", is_number),
        words=_NUMBER_WORDS,
        digits=3,
        leaks=(
            "MRN: «00451278»",
            '{"member_id": "«XK-55120»"}',
            "account number «4471 2290» closed",
            "driver's licence no. «D450-7891»",
            "my travel document is «K40217739»",
            "device serial «SN-889-201»",
        ),
        benign=(
            "account 12 locked",
            "license expired 2024-03-15",
            "patient id missing",
            "serial 5",
            "certificate verify failed (_ssl.c:1007)",
            "can't serialize 3.14, see RFC 2231",
        ),
    ),
    Rule(
        name="stated-number",
        reason="In prose people say what a number is: 'the number is ...'.",
        find=matching(
            r"""(?i: \b(?:number|licen[cs]e|document|passport|id[ ]card)[ ](?:is|was)[ ]:?
            (?P<secret> (?:[a-z]{2,5}[ ])?[a-z]{0,3}\d[\w./-]{0,30}(?<=\w)
                (?:[ -][a-z]{0,4}\d[\w/-]{0,12}){0,4}+ ) )""",
            _is_long_number,
        ),
        words=("number", "license", "licence", "document", "passport", "card"),
        digits=3,
        leaks=("The number is «27C 40931».",),
        benign=("the number is 5", "line number is 120"),
    ),
    Rule(
        name="labelled-date",
        reason="Dates of birth, admission, discharge, service and death, 164.514(b)(2)(i)(C).",
        find=anchored(("d.o.b", *_DATE_WORDS), rf"(?<![a-z0-9]) {_DATED} {JOINT} (?P<secret>{DATE})"),
        words=("o", *_DATE_WORDS),
        digits=1,
        leaks=(
            "DOB: «02.12.1979»",
            '{"birth_date": "«1979-12-02»"}',
            "{'dob': datetime.date(«1979, 12, 2»), 'n': 1}",
            "'dob': Timestamp('«1979-12-02 00:00:00»')",
            "DOB: «2. Dezember 1979»",
            "admitted on «3 March 2021» and",
            "date of service «03/04/2021»",
            "Today is «2021-03-04T05:06:07Z», or not",
        ),
        benign=(
            "2023-08-02T06:11:54Z intake[worker.7]: failed",
            "service 12 failed",
            'no such day: "2023-04-31"',
            "procedure 17 not found",
        ),
    ),
    Rule(
        name="labelled-name",
        reason="Names of patients, 164.514(b)(2)(i)(A), where a field is plainly called so.",
        find=matching(
            rf"""(?i:(?<![a-z0-9]) (?:{_NAME_OWNERS})[ _-]?name {_FIELD_JOINT})
            (?P<secret> {_NAME_PART}
                (?:[ ](?: [^\W\d_]\. | (?:van|de|der|von|al)\b | (?![a-z]){_NAME_PART} )){{0,4}}+ )""",
            _is_name,
        ),
        words=_NAME_WORDS,
        leaks=(
            "patient name: «Mia Kay» admitted",
            "{'first_name': '«Mia»', 'age': 4}",
            '"last_name": "«O\'Neil»"',
        ),
        benign=("hostname: db", "full_name: field required", "last_name=None", "filename: x"),
    ),
    Rule(
        name="labelled-kin",
        reason="Names of relatives, 164.514(b)(2)(i); they begin with a capital: `spouse: none` is none.",
        find=matching(
            rf"""(?i:(?<![a-z0-9]) (?:{_KIN}) {_FIELD_JOINT})
            (?P<secret> (?![a-z]){_NAME_PART}
                (?:[ ](?: [^\W\d_]\. | (?:van|de|der|von|al)\b | (?![a-z]){_NAME_PART} )){{0,4}}+ )""",
            _is_name,
        ),
        words=_KIN_WORDS,
        leaks=(
            "next of kin: «Mary Doe» informed",
            "{'mother': '«Mary»', 'age': 4}",
            "emergency_contact=«Bob Doe»",
        ),
        benign=(
            "spouse: none",
            "next_of_kin=None",
            "guardian: enabled",
            "mother is informed",
            "contact: Required",
            "contact: Support Desk",
        ),
    ),
    Rule(
        name="labelled-address",
        reason="Geographic subdivisions smaller than a state, 164.514(b)(2)(i)(B).",
        find=matching(
            rf"""(?i:(?<![a-z0-9])
            (?: (?:street|home|postal|mailing|residential|billing|shipping|patient)[ _-]?address
              | address(?:[ _-]?line)?[ _-]?[12]? )
            {_FIELD_JOINT} (?P<secret> \d{{1,6}}[a-z]?[ ][^\n"'`;{{}}<>\\]{{3,80}}+ ))""",
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
            rf"""(?i:(?<![a-z0-9]) (?:zip(?:[ _-]?code)?|post(?:al)?[ _-]?code) {_FIELD_JOINT}
            (?P<secret> \d{{5}}(?:-\d{{4}})? | [a-z]{{1,2}}\d[a-z\d]?[ ]?\d[a-z]{{2}} ) (?!\w) )""",
        ),
        words=("post", "postal", "postalcode", "postcode", "zip", "zipcode"),
        digits=1,
        leaks=("zip: «02139-1234»", '"postal_code": "«SW1A 1AA»"'),
        benign=("zip: 3 files", "post: 200"),
    ),
)

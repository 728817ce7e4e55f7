"""Keys whose values are hidden without a look at them, and keys of mappings that tell of a person."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

# Keys are compared by their letters and digits only, so that `api_key`, `apiKey` and `X-API-KEY` are one.
# The first row is the specification's list: password, token, secret, api_key, private_key, authorization,
# cookie, session_id, user_data; its security details add the encryption keys and certificates.
_SENSITIVE_PARTS: Final = (
    "password", "token", "secret", "apikey", "privatekey", "authorization", "cookie", "sessionid",
    "userdata", "encryptionkey", "decryptionkey", "certificate", "passwd", "passphrase", "passcode", "pwd",
    "credential", "basicauth", "connectionstring", "accesskey", "accountkey", "authkey", "clientkey",
    "masterkey", "saskey", "servicekey", "sessionkey", "sharedkey", "signingkey", "sshkey",
    "accountnumber", "accountno", "admissiondate", "beneficiary", "biometric", "birthdate", "cardnumber",
    "creditcard", "dateofbirth", "dateofdeath", "dateofservice", "deathdate", "dischargedate",
    "emailaddress", "emergencycontact", "familyname", "fingerprint", "firstname", "fullname", "givenname",
    "healthplan", "homeaddress", "lastname", "licencenumber", "licensenumber", "maidenname", "mailaddress",
    "medicalrecord", "memberid", "middlename", "nationalid", "nextofkin", "passportn", "patientid",
    "patientname", "phone",
    "postalcode", "serialn", "socialsecurity", "streetaddress", "subscriberid", "taxid",
)  # fmt: skip
_SENSITIVE_KEYS: Final = frozenset((
    "address", "auth", "birthday", "cvc", "cvv", "dob", "dod", "dsn", "email", "father", "fax", "fathersname",
    "guardian", "iban", "ipaddress", "jwt", "mobile", "mother", "mothersname", "mrn", "nok", "otp",
    "pass", "pin", "sig", "signature", "ssn", "surname", "vin", "zip", "zipcode", "dbpass", "userpass",
))  # fmt: skip
# Counters and descriptions of tokens, and the digests that name a public certificate or key.
_PUBLIC: Final = re.compile(
    r"(?:max|num|prompt|completion|total|input|output)tokens?|tokens?(?:count|limit|bucket|type|url|used)|tokeniz"
    r"|password(?:policy|age|changedat|expiresat)"
)
# What is hidden of a mapping that tells of a person; elsewhere `name` is that of a stage, a file or a host.
_OF_A_PERSON: Final = frozenset((
    "alias", "city", "county", "first", "initials", "last", "middle", "name", "nickname", "street",
))  # fmt: skip
_PERSONS: Final = frozenset(("guarantor", "insured", "patient", "patients", "person", "persons"))
_ONLY_PERSONS_HAVE: Final = frozenset((
    "admissiondate", "birthdate", "birthday", "dateofbirth", "dischargedate", "dob", "firstname", "givenname",
    "lastname", "maidenname", "memberid", "mrn", "patientid", "ssn", "subscriberid", "surname",
))  # fmt: skip
# A metric may be of these, too: then only what looks like a name is taken for one.
_PERSONS_HAVE: Final = frozenset(("age", "gender", "sex"))
_FULL_NAME: Final = re.compile(r"[A-Z][\w'\u2019.-]*,?(?: [A-Z][\w'\u2019.-]*){1,3}")
_GIVEN_NAME: Final = re.compile(r"[A-Z][A-Za-z'\u2019-]+")
_SENSITIVE_PART: Final = re.compile("|".join(_SENSITIVE_PARTS))
_NOT_ALPHANUMERIC: Final = re.compile(r"[^a-z0-9]+")
_LONGEST_KEY: Final = 256


def compact_key(key: str) -> str:
    """Return the letters and digits of a key, in lower case."""
    return _NOT_ALPHANUMERIC.sub("", key[:_LONGEST_KEY].lower())


def is_sensitive_key(key: str) -> bool:
    """Tell whether a value under `key` is hidden without a look at it."""
    return hides(compact_key(key))


def hides(compact: str) -> bool:
    """Tell what `is_sensitive_key` does, of a key that `compact_key` returned."""
    if compact in _SENSITIVE_KEYS:
        return True
    return _SENSITIVE_PART.search(compact) is not None and not _PUBLIC.fullmatch(compact)


def tells_of_a_person(compact_keys: Collection[str]) -> bool:
    """Tell whether a mapping with these keys, as `compact_key` returns them, is a person's record."""
    return not _ONLY_PERSONS_HAVE.isdisjoint(compact_keys)


def holds_persons(compact: str) -> bool:
    """Tell whether what stands under a key, below it too, tells of persons."""
    return compact in _PERSONS


def names_a_person(compact: str, value: str, siblings: Collection[str], *, of_person: bool) -> bool:
    """Tell whether a string is hidden for whom it names, under a key that alone does not say so.

    Args:
        compact: the key, as `compact_key` returns it.
        value: the string under it.
        siblings: the keys of the same mapping, compact.
        of_person: whether the mapping, or one around it, tells of a person.
    """
    if compact == "patient":
        return True
    if compact not in _OF_A_PERSON:
        return False
    if of_person:
        return True
    if compact == "name":
        return not _PERSONS_HAVE.isdisjoint(siblings) and _FULL_NAME.fullmatch(value) is not None
    # Pages have a first and a last, too, but as numbers or dates.
    both = compact in {"first", "last"} and "first" in siblings and "last" in siblings
    return both and _GIVEN_NAME.fullmatch(value) is not None

"""Keys of mappings whose values are hidden without a look at them."""

from __future__ import annotations

import re
from typing import Final

# Keys are compared by their letters and digits only, so that `api_key`, `apiKey` and `X-API-KEY` are one.
# The first row is the specification's list: password, token, secret, api_key, private_key, authorization,
# cookie, session_id, user_data; its security details add the encryption keys and certificates.
_SENSITIVE_PARTS: Final = (
    "password", "token", "secret", "apikey", "privatekey", "authorization", "cookie", "sessionid",
    "userdata", "encryptionkey", "decryptionkey", "certificate", "passwd", "passphrase", "passcode", "pwd",
    "credential", "basicauth", "connectionstring", "accesskey", "accountkey", "authkey", "clientkey",
    "masterkey", "saskey", "servicekey", "sessionkey", "sharedkey", "signingkey", "sshkey",
    "accountnumber", "accountno", "beneficiary", "biometric", "birthdate", "cardnumber", "creditcard",
    "dateofbirth", "emailaddress", "familyname", "fingerprint", "firstname", "fullname", "givenname",
    "healthplan", "homeaddress", "lastname", "licencenumber", "licensenumber", "maidenname", "mailaddress",
    "medicalrecord", "memberid", "middlename", "nationalid", "passportn", "patientname", "phone",
    "postalcode", "serialn", "socialsecurity", "streetaddress", "subscriberid", "taxid",
)  # fmt: skip
_SENSITIVE_KEYS: Final = frozenset((
    "address", "auth", "cvc", "cvv", "dob", "dsn", "email", "fax", "iban", "ipaddress", "jwt", "mobile",
    "mrn", "otp", "pass", "pin", "sig", "signature", "ssn", "surname", "vin", "zip", "zipcode", "dbpass",
    "userpass",
))  # fmt: skip
# Counters and descriptions of tokens, and the digests that name a public certificate or key.
_PUBLIC: Final = re.compile(
    r"(?:max|num|prompt|completion|total|input|output)tokens?|tokens?(?:count|limit|bucket|type|url|used)|tokeniz"
    r"|password(?:policy|age|changedat|expiresat)"
)
_NOT_ALPHANUMERIC: Final = re.compile(r"[^a-z0-9]+")
_LONGEST_KEY: Final = 256


def is_sensitive_key(key: str) -> bool:
    """Tell whether a value under `key` is hidden without a look at it."""
    compact = _NOT_ALPHANUMERIC.sub("", key[:_LONGEST_KEY].lower())
    if compact in _SENSITIVE_KEYS:
        return True
    return any(part in compact for part in _SENSITIVE_PARTS) and not _PUBLIC.fullmatch(compact)

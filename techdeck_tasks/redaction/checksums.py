"""Check digits of identifiers. Each function takes the identifier without separators and never raises."""

# ruff: noqa: PLR2004 - lengths, weights and ranges are those of the standard that each function names

from __future__ import annotations

_VERHOEFF_PRODUCT = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_VERHOEFF_SHIFT = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
_VIN_VALUES = dict(
    zip("ABCDEFGHJKLMNPRSTUVWXYZ", (*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)), strict=True)
)
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_IBAN_LENGTHS = range(15, 35)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812: payment cards, IMEI."""
    if not digits.isdecimal() or not digits.isascii():
        return False
    doubled = sum(sum(divmod(int(digit) * 2, 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def payment_card(digits: str) -> bool:
    """Luhn, and an issuer range that cards are really issued in."""
    if not 12 <= len(digits) <= 19 or not luhn(digits) or len(set(digits)) < 2:
        return False
    if digits[0] == "1":
        return len(digits) == 15  # UATP
    if digits[0] == "2":
        return len(digits) == 16 and 2221 <= int(digits[:4]) <= 2720
    if digits[0] == "4":
        return len(digits) in {13, 16, 18, 19}
    return digits[0] in "356" and len(digits) >= (14 if digits[0] == "3" else 12)


def iban_length(compact: str) -> int:
    """ISO 13616: return how many leading characters form a valid IBAN, 0 if none do."""
    for length in reversed(_IBAN_LENGTHS):
        if len(compact) >= length:
            candidate = compact[:length]
            rotated = candidate[4:] + candidate[:4]
            if int("".join(str(int(char, 36)) for char in rotated)) % 97 == 1:
                return length
    return 0


def nhs_number(digits: str) -> bool:
    """NHS number of the United Kingdom: ten digits, weighted modulo 11."""
    if len(digits) != 10 or not digits.isdecimal():
        return False
    return sum(int(digit) * weight for digit, weight in zip(digits, range(10, 0, -1), strict=True)) % 11 == 0


def npi(digits: str) -> bool:
    """National Provider Identifier: Luhn over the prefix 80840 and ten digits that begin with 1 or 2."""
    return len(digits) == 10 and digits[0] in "12" and luhn("80840" + digits)


def dea_number(value: str) -> bool:
    """DEA registration: two letters (or a letter and 9), six digits and their check digit."""
    digits = value[2:]
    if len(digits) != 7 or not digits.isdecimal():
        return False
    odd, even = sum(map(int, digits[0:6:2])), sum(map(int, digits[1:6:2]))
    return (odd + 2 * even) % 10 == int(digits[6])


def aba_routing(digits: str) -> bool:
    """ABA routing transit number: nine digits, weights 3, 7, 1."""
    if len(digits) != 9 or not digits.isdecimal() or digits[0] not in "01236789":
        return False
    return sum(int(digit) * weight for digit, weight in zip(digits, (3, 7, 1) * 3, strict=True)) % 10 == 0


def vin(value: str) -> bool:
    """ISO 3779 with the North American check digit in the ninth place."""
    if len(value) != 17 or not all(char.isdecimal() or char in _VIN_VALUES for char in value):
        return False
    values = (_VIN_VALUES.get(char) or int(char) for char in value)
    total = sum(number * weight for number, weight in zip(values, _VIN_WEIGHTS, strict=True))
    return "0123456789X"[total % 11] == value[8]


def verhoeff(digits: str) -> bool:
    """Aadhaar numbers of India."""
    state = 0
    if not digits.isdecimal():
        return False
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(place % 8):
            value = _VERHOEFF_SHIFT[value]
        state = _VERHOEFF_PRODUCT[state][value]
    return state == 0


def spanish_id(value: str) -> bool:
    """DNI, NIF and NIE of Spain: the letter is the number modulo 23."""
    number = value[:-1].translate({ord("X"): "0", ord("Y"): "1", ord("Z"): "2"})
    return number.isdecimal() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == value[-1]

"""Check digits, against published examples."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from techdeck_tasks.redaction import checksums


@pytest.mark.parametrize(
    "digits", ["4111111111111111", "374411220097312", "6011556677889904", "2223003122003222"]
)
def test_a_payment_card_needs_its_check_digit(digits: str) -> None:
    assert checksums.payment_card(digits)
    assert not checksums.payment_card(digits[:-1] + str((int(digits[-1]) + 1) % 10))


@pytest.mark.parametrize("digits", ["1580525453123456", "0000000000000000", "9999999999999995", "41111"])
def test_a_timestamp_or_repetition_is_no_payment_card(digits: str) -> None:
    assert not checksums.payment_card(digits)


@pytest.mark.parametrize(
    ("text", "length"),
    [("GB82WEST12345698765432", 22), ("GB82WEST12345698765432AND", 22), ("GB83WEST12345698765432", 0)],
)
def test_an_iban_is_found_at_the_front(text: str, length: int) -> None:
    assert checksums.iban_length(text) == length


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (checksums.nhs_number, "9434765919", "9434765918"),
        (checksums.npi, "1987654328", "1987654329"),
        (checksums.dea_number, "BB1388568", "BB1388569"),
        (checksums.aba_routing, "121000358", "121000359"),
        (checksums.vin, "1HGCM82633A004352", "1HGCM82643A004352"),
        (checksums.verhoeff, "2363", "2364"),
        (checksums.spanish_id, "12345678Z", "12345678A"),
        (checksums.luhn, "79927398713", "79927398710"),
    ],
)
def test_a_check_digit_tells_right_from_wrong(check: Callable[[str], bool], right: str, wrong: str) -> None:
    assert check(right)
    assert not check(wrong)
    assert not check("X")

"""A token of each vendor is found in prose, and its prefix alone is not."""

from __future__ import annotations

import random
import re
import string

import pytest

from techdeck_tasks.redaction import redact
from techdeck_tasks.redaction.vendors import VENDORS, Vendor

ROWS = [pytest.param(vendor, prefix, id=prefix) for vendor in VENDORS for prefix in vendor.prefixes]


def token_of(vendor: Vendor, prefix: str) -> str:
    allowed = re.compile(f"[{vendor.alphabet}]")
    characters = [char for char in string.ascii_letters + string.digits if allowed.match(char)]
    source = random.Random(prefix)
    return prefix + "".join(source.choice(characters) for _ in range(max(vendor.least, 12)))


@pytest.mark.parametrize(("vendor", "prefix"), ROWS)
def test_a_token_is_hidden_wherever_it_stands(vendor: Vendor, prefix: str) -> None:
    token = token_of(vendor, prefix)
    for text in (
        token,
        f"bad credential {token}.",
        f"KeyError: '{token}'",
        f"a={token};b=1",
        f'{{"v":"{token}"}}',
        f"\\n{token}",
    ):
        assert token[len(prefix) :] not in redact(text), text


@pytest.mark.parametrize(("vendor", "prefix"), ROWS)
def test_a_prefix_without_a_token_is_left_alone(vendor: Vendor, prefix: str) -> None:
    text = f"a value that begins with {prefix} is expected"
    assert redact(text) == text


def test_no_prefix_is_listed_twice() -> None:
    prefixes = [prefix for vendor in VENDORS for prefix in vendor.prefixes]
    assert len(prefixes) == len(set(prefixes))
    assert all(len(prefix) >= 2 for prefix in prefixes)

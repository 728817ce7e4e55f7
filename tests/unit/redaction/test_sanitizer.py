"""Bounds of `sanitize_message` and `redact`."""

from __future__ import annotations

import pytest

from techdeck_tasks.redaction import MAX_MESSAGE_CHARS, MAX_TEXT_CHARS, REDACTED, redact, sanitize_message

LONG = "word " * 400


def test_a_long_message_is_cut_at_the_limit_and_marked() -> None:
    assert sanitize_message(LONG) == LONG[:500] + "..."
    assert len(sanitize_message(LONG)) == MAX_MESSAGE_CHARS


def test_a_message_at_the_limit_is_not_cut() -> None:
    text = LONG[:499] + "."
    assert sanitize_message(text) == text


def test_the_cut_never_splits_a_placeholder() -> None:
    for length in range(480, 505):
        text = "x " * (length // 2) + " password=hunter2 and more words that go on"
        result = sanitize_message(text)
        assert "[" not in result.replace(REDACTED, "")
        assert sanitize_message(result) == result


def test_words_behind_a_long_secret_survive() -> None:
    key = (
        "-----BEGIN PRIVATE KEY-----\n"
        + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3\n" * 60
        + "-----END PRIVATE KEY-----"
    )
    assert sanitize_message(f"cannot load {key} from disk") == f"cannot load {REDACTED} from disk"


def test_a_secret_at_the_edge_of_what_is_read_does_not_leak_in_part() -> None:
    for offset in range(40):
        filler = "-----BEGIN PRIVATE KEY-----\n" + "QUJDREVGR0hJSktMTU5P\n" * 770
        text = filler + "-----END PRIVATE KEY----- " + "x" * offset + " password=correcthorsebattery and more"
        assert "correct" not in sanitize_message(text)


def test_text_beyond_the_bound_is_redacted_not_passed_through() -> None:
    text = "all is well " * (MAX_TEXT_CHARS // 12 + 10) + "my ssn is 078-05-1120"
    result = redact(text)
    assert len(result) <= MAX_TEXT_CHARS
    assert result.endswith(REDACTED)
    assert redact(result) == result


def test_short_text_is_not_cut_by_redact() -> None:
    assert redact(LONG) == LONG


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "\ud800", "\ud800password=\udfff", "İ" * 600, "token=" * 500]
)
def test_odd_text_does_not_raise(text: str) -> None:
    assert sanitize_message(sanitize_message(text)) == sanitize_message(text)
    assert redact(redact(text)) == redact(text)


def test_neighbouring_secrets_share_one_placeholder() -> None:
    assert (
        sanitize_message("DETAIL:  Failing row contains (Mia, mia@clinic.test, 078-05-1120).").count(REDACTED)
        == 1
    )


def test_text_that_holds_the_placeholder_is_stable() -> None:
    text = f"password={REDACTED} for {REDACTED}@host [parameters: {REDACTED}]"
    assert sanitize_message(text) == text

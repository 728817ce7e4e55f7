"""Integers that doubles may not hold are found wherever a block ends."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.pipeline.sources.doubles import has_long_integer

TEXTS = st.text(st.sampled_from("0123456789.,eE -\nü"), max_size=60)


@given(text=TEXTS, size=st.integers(1, 20))
def test_a_number_that_has_long_integer_digits_is_found_whichever_blocks_it_lies_in(
    text: str, size: int
) -> None:
    data = text.encode()
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    assert has_long_integer(blocks) is bool(re.search("[0-9]{16}", text))

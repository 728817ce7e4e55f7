"""What a malformed TECHDECK_DATABASE_URL may tell."""

from __future__ import annotations

import pytest

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.database import connect_database


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("hunter2", "no database URL"),
        ("postgresql+psycopg://u:hunter2@h:abc/d", "no database URL"),
        ("postgresql+psycopg://u:hunter2@h:99999/d", "1 to 65535"),
        ("postgresql+psycopg://u:hunt@hunter2@h:5432/d", "percent-encoded"),
        ("postgresql+psycopg://u:hunter2@", "names no host"),
        ("postgresql+psycopg://u:pw@h/d?nope=hunter2", "no option of libpq"),
        ("postgresql+psycopg://u:pw@h/d?hunter2=1", "no option of libpq"),
    ],
)
def test_a_malformed_url_is_refused_with_its_remedy_and_not_repeated(url: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=f"TECHDECK_DATABASE_URL is malformed: .*{complaint}") as caught:
        connect_database(Settings(database_url=url))

    assert "hunter2" not in str(caught.value.to_dict())
    assert "USER@HOST:5432/NAME" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u@h:5432/d?sslmode=require", "postgresql+psycopg:///d?host=/tmp/run"]
)
def test_an_engine_is_made_without_connecting(url: str) -> None:
    assert connect_database(Settings(database_url=url)).url.database == "d"

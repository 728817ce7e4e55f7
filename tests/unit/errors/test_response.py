"""What a caller reads, and that the page it is sent to exists."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.audit.event import AuditUnavailableError
from techdeck_tasks.errors import (
    InternalError,
    TechDeckError,
    ValidationError,
    classify,
    error_id_of,
    lookup,
    registered_codes,
)
from techdeck_tasks.errors.guidance import guidance_for
from techdeck_tasks.errors.response import (
    Response,
    as_http,
    build_response,
    documentation_url,
    fail_safe_response,
    http_status_of,
    problem_details,
    valid_request_id,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
BASE = "https://docs.example/errors.md"
PAGE = Path(__file__).parents[3] / "docs" / "errors.md"
OURS = [code for code in registered_codes() if lookup(code).__module__.startswith("techdeck_tasks.")]


def response_to(error: BaseException, **recovery: object) -> Response:
    return build_response(
        error,
        classify(error),
        documentation_base_url=BASE,
        timestamp=NOW,
        recovery=recovery or None,
    )


def test_the_response_has_the_keys_of_the_specification() -> None:
    error = ValidationError("the age must be positive", field="age")
    assert response_to(error) == {
        "error_id": error.error_id,
        "error_code": "VALIDATION_ERROR",
        "message": "the age must be positive",
        "timestamp": "2030-01-02T03:04:05+00:00",
        "recoverable": True,
        "user_guidance": "Please check your input data and try again.",
        "request_tracking": {
            "retry_allowed": True,
            "support_reference": error.error_id[:8],
            "documentation_url": f"{BASE}#validation_error",
        },
    }


def test_a_recovery_is_told_with_its_message_redacted() -> None:
    response = response_to(
        TimeoutError(), successful=True, message="used password=hunter2", strategy_used="x"
    )
    assert response["recovery_attempted"] is True
    assert response["recovery_successful"] is True
    assert "hunter2" not in response["recovery_message"]


@given(st.text(min_size=4).filter(lambda text: text not in guidance_for("INTERNAL_ERROR").message))
def test_the_text_of_a_foreign_exception_is_never_in_a_response(text: str) -> None:
    response = response_to(ValueError(f"§{text}§"))
    assert f"§{text}§" not in json.dumps(response, ensure_ascii=False)
    assert response["message"] == guidance_for("INTERNAL_ERROR").message


@pytest.mark.parametrize("code", OURS)
def test_every_code_has_guidance_of_its_own(code: str) -> None:
    texts = guidance_for(code)
    assert texts.advice.startswith(("Please", "You", "The", "An"))
    assert texts == guidance_for(code)
    others = [guidance_for(other) for other in OURS if other != code]
    assert texts.title not in {other.title for other in others}


def test_an_applications_code_borrows_the_texts_of_its_base() -> None:
    class LabTimeoutError(TechDeckError, code="LAB_TIMEOUT_FOR_GUIDANCE"):
        pass

    class LabInputError(ValidationError, code="LAB_INPUT_FOR_GUIDANCE"):
        pass

    assert guidance_for(LabInputError.code) == guidance_for("VALIDATION_ERROR")
    assert guidance_for(LabTimeoutError.code) == guidance_for("TECHDECK_ERROR")
    assert guidance_for("NOT_REGISTERED") == guidance_for("TECHDECK_ERROR")


def test_problem_details_carry_the_response_as_extensions() -> None:
    response = response_to(InternalError("x"))
    problem = problem_details(response, 500)
    assert problem["type"] == f"{BASE}#internal_error"
    assert (problem["title"], problem["status"], problem["detail"]) == ("Internal error", 500, "x")
    assert UUID(problem["instance"].removeprefix("urn:uuid:")) == UUID(response["error_id"])
    assert {key: problem[key] for key in response if key != "message"} == {
        key: value for key, value in response.items() if key != "message"
    }


def test_the_fail_safe_response_keeps_the_id_of_the_error_handled() -> None:
    error = ValueError("x")
    response = fail_safe_response(error_id_of(error), timestamp=NOW)
    assert response["error_id"] == error_id_of(error)
    assert (response["error_code"], response["fail_safe_mode"], response["recoverable"]) == (
        "INTERNAL_ERROR",
        True,
        False,
    )
    assert response["support_reference"] == error_id_of(error)[:8]
    assert problem_details(response, 500)["type"] == "about:blank"


@pytest.mark.parametrize(
    ("code", "status"), [("AUTH_ERROR", 401), ("TIMEOUT_ERROR", 504), ("NONE_SUCH", 500)]
)
def test_statuses_follow_the_code(code: str, status: int) -> None:
    assert http_status_of(code) == status


@pytest.mark.parametrize(
    ("retry_at", "seconds"),
    [
        (None, "30"),
        (NOW + timedelta(seconds=7.2), "8"),
        (NOW - timedelta(seconds=7), "1"),
    ],
)
def test_retry_after_is_whole_seconds_from_now(retry_at: datetime | None, seconds: str) -> None:
    _, headers, _ = as_http(response_to(AuditUnavailableError("x")), retry_at, "id", NOW)
    assert headers["Retry-After"] == seconds


def test_headers_forbid_caching_and_name_both_ids() -> None:
    response = response_to(ValueError())
    status, headers, body = as_http(response, None, "id-1", NOW)
    assert (status, body) == (500, response)
    assert headers == {
        "X-Error-ID": response["error_id"],
        "X-Request-ID": "id-1",
        "Cache-Control": "no-cache, no-store, must-revalidate",
    }


@pytest.mark.parametrize("value", ["a", "A-1_b.c", "x" * 128])
def test_a_harmless_request_id_is_kept(value: str) -> None:
    assert valid_request_id(value) == value


@pytest.mark.parametrize("value", [None, "", "x" * 129, "a\r\nSet-Cookie: b", "a\n", "ä", "a b", 5, b"a"])
def test_any_other_request_id_is_replaced(value: object) -> None:
    assert UUID(valid_request_id(value))


# -- docs/errors.md ----------------------------------------------------------------------------------


def sections() -> dict[str, str]:
    page = PAGE.read_text()
    return dict(re.findall(r'<a id="([a-z_]+)"></a>\n(.*?)(?=\n<a id=|\Z)', page, re.DOTALL))


@pytest.mark.parametrize("code", OURS)
def test_the_documentation_url_of_every_code_points_to_its_section(code: str) -> None:
    anchor = documentation_url(BASE, code).partition("#")[2]
    section = sections()[anchor]
    assert f"\n## {code}\n" in section
    for part in ("Meaning", "Cause", "Remedy", "Retry", "HTTP status"):
        assert re.search(rf"\*\*{part}\.\*\* \S", section), part
    assert f"**HTTP status.** {lookup(code).http_status}" in section


@pytest.mark.parametrize("code", OURS)
def test_the_table_of_codes_agrees_with_the_classes(code: str) -> None:
    cls = lookup(code)
    assert f"| [`{code}`](#{code.lower()}) | {cls.http_status} | {cls.severity} |" in PAGE.read_text()


def test_the_page_has_no_section_of_an_unknown_code() -> None:
    assert set(sections()) == {code.lower() for code in OURS}

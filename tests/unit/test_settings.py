from __future__ import annotations

from pathlib import Path

import pytest

from techdeck_tasks.settings import Environment, Settings, SettingsError, load_settings


def test_every_name_of_the_specification_is_a_setting() -> None:
    names = {
        "DEFAULT_MAX_RETRIES",
        "DEFAULT_RETRY_DELAY_SECONDS",
        "DEFAULT_EXPONENTIAL_BASE",
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        "CIRCUIT_BREAKER_SUCCESS_THRESHOLD",
        "CIRCUIT_BREAKER_TIMEOUT_SECONDS",
        "CONNECTION_RESET_DELAY_SECONDS",
        "ERROR_LOG_ENCRYPTION_ENABLED",
        "ERROR_LOG_RETENTION_DAYS",
        "ERROR_RATE_ALERT_THRESHOLD",
        "SERVICE_ERROR_RATE_THRESHOLDS",
        "METRICS_RETENTION_HOURS",
    }

    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_the_environment_is_read_with_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHDECK_DEFAULT_MAX_RETRIES", "0")
    monkeypatch.setenv("TECHDECK_SERVICE_ERROR_RATE_THRESHOLDS", '{"lab": 2.5}')

    settings = load_settings()

    assert settings.default_max_retries == 0
    assert settings.service_error_rate_thresholds == {"lab": 2.5}


def test_a_secrets_folder_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "techdeck_redis_url").write_text("redis://from-a-file/0")
    (tmp_path / "techdeck_database_url").write_text("postgresql+psycopg://from-a-file/x")
    monkeypatch.setenv("TECHDECK_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("TECHDECK_REDIS_URL", "redis://from-the-environment/0")

    settings = load_settings()

    assert settings.redis_url.get_secret_value() == "redis://from-the-environment/0"
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://from-a-file/x"


def test_an_env_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.env"
    file.write_text("TECHDECK_TENANT='clinic-7'\n")
    monkeypatch.setenv("TECHDECK_ENV_FILE", str(file))

    assert load_settings().tenant == "clinic-7"


@pytest.mark.parametrize("source", ["file", "environment", "secrets folder"])
@pytest.mark.parametrize("secret", ["a${HOME}b", "${NOBODY-default}", "$HOME", "$$", "a$b${", r"\${HOME}"])
def test_a_secret_with_dollars_comes_through_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, secret: str
) -> None:
    url = f"redis://:{secret}@host/0"
    if source == "file":
        escaped = url.replace("\\", r"\\")
        (tmp_path / "some.env").write_text(f"TECHDECK_REDIS_URL='{escaped}'\n")
        monkeypatch.setenv("TECHDECK_ENV_FILE", str(tmp_path / "some.env"))
    elif source == "environment":
        monkeypatch.setenv("TECHDECK_REDIS_URL", url)
    else:
        (tmp_path / "techdeck_redis_url").write_text(url)
        monkeypatch.setenv("TECHDECK_SECRETS_DIR", str(tmp_path))

    assert load_settings().redis_url.get_secret_value() == url


@pytest.mark.parametrize("line", ["a${HOME}b", '"a${HOME}b"', "'a${HOME}b'"])
def test_dollars_are_kept_however_the_value_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "some.env").write_text(f"TECHDECK_ARTIFACT_URL={line}\n")
    monkeypatch.setenv("TECHDECK_ENV_FILE", str(tmp_path / "some.env"))

    assert load_settings().artifact_url == "a${HOME}b"


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("default_max_retries", -1, "TECHDECK_DEFAULT_MAX_RETRIES"),
        ("default_exponential_base", 0.5, "greater than or equal to 1"),
        ("circuit_breaker_failure_threshold", 0, "greater than 0"),
        ("error_rate_alert_threshold", 101, "less than or equal to 100"),
        ("tenant", "a b", "TECHDECK_TENANT"),
        ("log_level", "loud", "DEBUG, INFO"),
        ("task_soft_time_limit_seconds", 4000, "must be below"),
        ("visibility_timeout_seconds", 100, "run the task twice"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_limit(field: str, value: object, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load_settings(**{field: value})


def test_a_value_that_is_no_json_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHDECK_ALERT_CHANNELS", "mailto://user:secret@host")
    with pytest.raises(SettingsError, match=r"must be JSON is not.*alert_channels") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


def test_a_malformed_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(redis_url=["hunter2-secret"])

    assert "TECHDECK_REDIS_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_secrets_are_absent_from_the_repr() -> None:
    settings = load_settings(
        redis_url="redis://:pw-one@h/0", database_url="postgresql+psycopg://u:pw-two@h/x"
    )

    assert "pw-one" not in repr(settings)
    assert "pw-two" not in str(settings)


def test_an_unencrypted_error_log_is_refused_outside_development() -> None:
    with pytest.raises(SettingsError, match="TECHDECK_ENVIRONMENT=development"):
        load_settings(error_log_encryption_enabled=False)

    development = load_settings(error_log_encryption_enabled=False, environment=Environment.DEVELOPMENT)
    assert not development.error_log_encryption_enabled


def test_broker_and_results_are_redis_unless_told_otherwise() -> None:
    settings = load_settings(redis_url="redis://one/0", result_backend_url="redis://two/1")

    assert settings.effective_broker_url.get_secret_value() == "redis://one/0"
    assert settings.effective_result_backend_url.get_secret_value() == "redis://two/1"


def test_the_reports_schedule_takes_known_kinds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().compliance_report_schedule == {"monthly"}
    monkeypatch.setenv("TECHDECK_COMPLIANCE_REPORT_SCHEDULE", '["daily", "weekly"]')
    assert load_settings().compliance_report_schedule == {"daily", "weekly"}
    monkeypatch.setenv("TECHDECK_COMPLIANCE_REPORT_SCHEDULE", '["hourly"]')
    with pytest.raises(SettingsError, match="TECHDECK_COMPLIANCE_REPORT_SCHEDULE"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff\xfeT\0E\0", r"is not UTF-8 \(byte 1\); save it as UTF-8"),
        (b"TECHDECK_TENANT=caf\xe9\n", r"is not UTF-8 \(byte 20\)"),
        (b"# mine\n\nTECHDECK_REDIS_URL: redis://:hunter2@h\n", "line 3: this is no NAME=value"),
        (b'TECHDECK_TENANT=a\nTECHDECK_REDIS_URL="redis://:hunter2@h\n', "line 2: this is no NAME=value"),
        (b"TECHDECK_TENANT\n", "line 1: this is no NAME=value"),
        (b"[techdeck]\n", "line 1: this is no NAME=value"),
        (b"TECHDECK_DATA_ROOT=hunter2\n", "TECHDECK_DATA_ROOT, did you mean TECHDECK_DATA_ROOTS"),
    ],
)
def test_a_settings_file_that_cannot_be_understood_is_refused_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, complaint: str
) -> None:
    (tmp_path / "some.env").write_bytes(content)
    monkeypatch.setenv("TECHDECK_ENV_FILE", str(tmp_path / "some.env"))

    with pytest.raises(SettingsError, match=complaint) as caught:
        load_settings()

    assert "some.env" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_byte_order_mark_hides_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.env").write_bytes(b"\xef\xbb\xbfTECHDECK_TENANT=clinic-7\r\nOTHER=1\r\n")
    monkeypatch.setenv("TECHDECK_ENV_FILE", str(tmp_path / "some.env"))

    assert load_settings().tenant == "clinic-7"


@pytest.mark.parametrize("name", ["nowhere.env", "."])
def test_a_settings_file_that_is_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TECHDECK_ENV_FILE", str(tmp_path / name))

    with pytest.raises(SettingsError, match=r"cannot be read \(.*set TECHDECK_ENV_FILE"):
        load_settings()


def test_no_settings_file_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TECHDECK_ENV_FILE", raising=False)
    assert load_settings().tenant == "default"
    monkeypatch.setenv("TECHDECK_ENV_FILE", "")
    assert load_settings().tenant == "default"


@pytest.mark.parametrize("name", ["nowhere", "a file"])
def test_a_secrets_folder_that_is_named_must_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("TECHDECK_SECRETS_DIR", str(tmp_path / name))

    with pytest.raises(SettingsError, match=r"TECHDECK_SECRETS_DIR names .* no folder"):
        load_settings()


def test_a_secret_in_another_encoding_is_named_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "techdeck_redis_url").write_bytes(b"redis://:hunter2\xff@h")
    monkeypatch.setenv("TECHDECK_SECRETS_DIR", str(tmp_path))

    with pytest.raises(SettingsError, match=r"not UTF-8.*redis_url") as caught:
        load_settings()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("field", ["redis_url", "broker_url", "result_backend_url"])
@pytest.mark.parametrize("url", ["hunter2", "redis://:hunter2@[::1/0", "redis://:hunter2@h:abc/0"])
def test_a_url_that_cannot_be_taken_apart_is_refused_and_not_repeated(field: str, url: str) -> None:
    with pytest.raises(SettingsError, match=f"TECHDECK_{field.upper()}: is no URL") as caught:
        load_settings(**{field: url})

    assert "hunter2" not in str(caught.value)


def test_settings_made_by_hand_do_not_repeat_what_they_refuse_either() -> None:
    with pytest.raises(ValueError, match="redis_url") as caught:
        Settings(redis_url="redis://:hunter2@[::1/0")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("redis_timeout_seconds", "inf"),
        ("web_timeout_seconds", 1e300),
        ("database_connect_timeout_seconds", 10**20),
        ("error_log_retention_days", 10**9),
        ("metrics_retention_hours", 10**9),
        ("alert_repeat_hours", "inf"),
    ],
)
def test_a_time_longer_than_clocks_can_tell_is_refused(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"TECHDECK_{field.upper()}: .*less than or equal"):
        load_settings(**{field: value})

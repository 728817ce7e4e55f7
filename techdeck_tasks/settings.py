"""Typed settings, read from the environment with the prefix ``TECHDECK_``.

Each field's environment variable is its name in capitals after the prefix:
``default_max_retries`` is ``TECHDECK_DEFAULT_MAX_RETRIES``. Values come, first match wins, from the
constructor, the environment, the file named by ``TECHDECK_ENV_FILE`` (default ``.techdeck/techdeck.env``,
which ``techdeck up`` writes), and files in the folder named by ``TECHDECK_SECRETS_DIR``, one file a field.

A value means itself: ``$`` and ``${...}`` are replaced nowhere, for a password may hold them. Single quotes
around a value of the file keep spaces and ``#`` in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import pydantic_settings
from pydantic import Field, PositiveInt, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from techdeck_tasks.settings_file import nearest, read_settings_file

ENV_PREFIX = "TECHDECK_"
DEFAULT_ENV_FILE = ".techdeck/techdeck.env"
_NO_FIELDS = {f"{ENV_PREFIX}{name}" for name in ("ENV_FILE", "SECRETS_DIR", "DATA_DIR")}

# The upper bounds are what sockets and intervals of PostgreSQL take with certainty; none is meant to be used.
Seconds = Annotated[float, Field(ge=0, le=1e8)]
PositiveSeconds = Annotated[float, Field(gt=0, le=1e8)]
WholeSeconds = Annotated[int, Field(gt=0, le=100_000_000)]
Hours = Annotated[int, Field(gt=0, le=876_000)]
ReportSchedule = Literal["daily", "weekly", "monthly"]
Percent = Annotated[float, Field(ge=0, le=100)]
SeverityName = Annotated[str, Field(pattern=r"^(low|medium|high|critical)$")]


class SettingsError(ValueError):
    """A setting is missing or out of bounds. The text names each variable, its limit and the remedy."""


class Environment(StrEnum):
    """Where the process runs; `DEVELOPMENT` alone permits an unencrypted error log."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class FailPolicy(StrEnum):
    """What happens to an audit event that Redis does not take; see `audit.writing.publisher`."""

    SPOOL = "spool"
    CLOSED = "closed"
    OPEN = "open"


class _SettingsFile(DotEnvSettingsSource):
    """The settings file as `read_settings_file` reads it: pydantic's own source replaces ``${...}``."""

    def _read_env_file(self, file_path: Path) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in read_settings_file(file_path).items()}


class Settings(BaseSettings):
    """Everything a process of this package can be told. Durations are seconds unless the name says else."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    environment: Environment = Environment.PRODUCTION
    tenant: str = Field("default", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    log_level: str = "INFO"
    imports: tuple[str, ...] = Field(
        (), description='JSON, modules with stages and alert conditions of your own: ["clinic"]'
    )

    # -- servers -----------------------------------------------------------------------------------
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    broker_url: SecretStr | None = Field(None, description="Celery's broker; default: redis_url")
    result_backend_url: SecretStr | None = Field(None, description="Celery's results; default: redis_url")
    database_url: SecretStr = SecretStr("postgresql+psycopg://techdeck@127.0.0.1:5432/techdeck")
    redis_timeout_seconds: PositiveSeconds = Field(0.25, description="bound of one Redis call of our own")
    database_connect_timeout_seconds: WholeSeconds = 5
    artifact_url: str = Field(
        "file://.techdeck/artifacts", description="fsspec folder of the data handed from stage to stage"
    )
    upload_dir: Path = Field(Path(".techdeck/uploads"), description="files on their way in, and quarantine")
    upload_max_bytes: PositiveInt = Field(1 << 30, description="the largest file that an upload may have")
    upload_max_open: PositiveInt = Field(16, description="uploads that one submitter may have under way")
    upload_max_kept_bytes: PositiveInt = Field(
        1 << 35, description="of one submitter's files in all: announced, accepted and in quarantine"
    )
    upload_retention_hours: Hours = Field(
        168, description="an accepted file, and an upload that nothing arrives for, is removed after it"
    )
    upload_quarantine_hours: Hours = Field(
        720, description="a file that was refused for its content is removed after it"
    )

    # -- pipelines ---------------------------------------------------------------------------------
    data_roots: tuple[str, ...] | None = Field(
        None,
        description="JSON, folders and URLs below which sources and destinations must be; "
        "none: anywhere but in the service's own folders",
    )
    stage_lease_seconds: PositiveSeconds = Field(
        60.0, description="a stage whose worker or message is not heard of for so long is sent again"
    )
    stage_parts_at_once: PositiveInt = Field(
        16, description="so many parts of one run may wait for or occupy workers"
    )
    artifact_retention_hours: Hours = Field(
        168, description="so long after its end a run can be resumed; then its artifacts are removed"
    )

    # -- keys --------------------------------------------------------------------------------------
    keys_dir: Path = Field(Path(".techdeck/keys/producer"), description="keys every worker needs")
    reader_keys_dir: Path = Field(
        Path(".techdeck/keys/reader"), description="the audit log's private key; readers only"
    )
    key_wrapping: str | None = Field(
        None, description="aws-kms:KEY encrypts new key files by that KMS key; a file says how it is wrapped"
    )
    audit_key_algorithm: Literal["x25519", "mlkem768-x25519"] = Field(
        "x25519", description="of new audit keys; the second resists quantum computers too"
    )
    signing_keys_dir: Path = Field(
        Path(".techdeck/keys/signer"), description="signs the audit log's checkpoints; audit workers only"
    )

    # -- retry -------------------------------------------------------------------------------------
    default_max_retries: int = Field(3, ge=0, le=1000, description="0 means: never retry")
    default_retry_delay_seconds: PositiveSeconds = 1.0
    default_exponential_base: float = Field(2.0, ge=1, le=10)
    default_retry_cap_seconds: PositiveSeconds = 600.0
    default_retry_budget_seconds: PositiveSeconds = Field(
        3600.0, description="no retry starts later than this after the first attempt"
    )

    # -- circuit breaker ---------------------------------------------------------------------------
    circuit_breaker_failure_threshold: PositiveInt = 5
    circuit_breaker_success_threshold: PositiveInt = 2
    circuit_breaker_timeout_seconds: PositiveSeconds = 60.0

    # -- recovery and fallback ---------------------------------------------------------------------
    connection_reset_delay_seconds: Seconds = 1.0
    bias_fallback_assumes_no_bias: bool = Field(
        False, description="True reports 'no bias' where detection failed; a finding may be hidden"
    )

    # -- error log ---------------------------------------------------------------------------------
    error_log_encryption_enabled: bool = True
    error_log_retention_days: int = Field(
        2190, ge=1, le=36_500, description="six years, 45 CFR 164.316(b)(2)(i)"
    )
    audit_batch_size: int = Field(500, ge=1, le=5000)
    audit_checkpoint_interval_seconds: float = Field(
        60.0, gt=0, le=300, description="a signed checkpoint at least so often, also of a quiet log"
    )
    audit_checkpoint_rows: PositiveInt = Field(10_000, description="and at once after so many rows")
    audit_sink_url: str | None = Field(
        None, description="fsspec folder of the audit log's encrypted backup: file://, s3://, ..."
    )
    audit_sink_timeout_seconds: PositiveSeconds = Field(
        30.0, description="a sink that takes longer is reported; nothing waits for it"
    )
    audit_archive_url: str | None = Field(
        None,
        description="fsspec folder for months past their retention; unset, nothing is ever dropped",
    )
    audit_keys_per_subject: bool = Field(
        False, description="True gives each person's documents data keys of their own, to be erased alone"
    )
    audit_verify_processes: PositiveInt = Field(1, description="how many processes recompute the chains")
    audit_spool_dir: Path = Path(".techdeck/spool")
    audit_spool_max_bytes: PositiveInt = Field(
        256 << 20, description="of all files in audit_spool_dir; beyond it the fail policy decides"
    )
    audit_fail_policy: dict[SeverityName, FailPolicy] = Field(
        default_factory=dict,
        description='JSON, spool (default), closed or open a severity: {"critical": "closed"}',
    )
    compliance_report_schedule: frozenset[ReportSchedule] = Field(
        frozenset({"monthly"}), description='JSON, any of "daily", "weekly", "monthly"; [] makes none'
    )

    # -- metrics and alerts ------------------------------------------------------------------------
    metrics_retention_hours: Hours = 24 * 30
    metrics_address: str | None = Field(
        None, description="HOST:PORT where workers and beat serve /metrics without a login; default: nowhere"
    )
    error_rate_alert_threshold: Percent = 5.0
    service_error_rate_thresholds: dict[str, Percent] = Field(
        default_factory=dict, description='JSON, percent a service: {"dataset_load": 2.5}'
    )
    alert_channels: tuple[SecretStr, ...] = Field(
        (), description='JSON, apprise URLs: ["mailtos://user:password@host?to=ops@example.org"]'
    )
    alert_escalation_channels: tuple[SecretStr, ...] = Field(
        (), description="JSON, apprise URLs that hear of what nobody reacts to"
    )
    alert_channel_timeout_seconds: float = Field(10.0, gt=0, le=25, description="bound of one delivery")
    alert_fire_after_evaluations: PositiveInt = Field(1, description="in a row that find it; one a minute")
    alert_resolve_after_evaluations: PositiveInt = Field(2, description="in a row that do not find it")
    alert_repeat_hours: Annotated[float, Field(gt=0, le=876_000)] = 4.0
    alert_escalate_after_minutes: Annotated[float, Field(gt=0, le=1e6)] = 30.0

    # -- Celery ------------------------------------------------------------------------------------
    visibility_timeout_seconds: WholeSeconds = Field(
        7200, description="after it, Redis hands unfinished work to another worker"
    )
    task_time_limit_seconds: WholeSeconds = 3600
    task_soft_time_limit_seconds: WholeSeconds = 3300
    soft_shutdown_timeout_seconds: PositiveSeconds = 30.0

    # -- web ---------------------------------------------------------------------------------------
    web_requests_per_minute: PositiveInt = Field(
        600, description="of one token; an address may make five times as many"
    )
    web_max_body_bytes: int = Field(1_048_576, ge=1024)
    web_timeout_seconds: PositiveSeconds = Field(
        30.0, description="for a request to arrive, and for its answer to begin"
    )
    documentation_base_url: str = "docs/errors.md"
    flower_basic_auth: SecretStr | None = Field(None, description="user:password; Flower needs one")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the first match first."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        settings_file = _SettingsFile(settings_cls, env_file=dotenv_settings.env_file)
        return init_settings, env_settings, settings_file, file_secret_settings

    @field_validator("redis_url", "broker_url", "result_backend_url")
    @classmethod
    def _url_can_be_taken_apart(cls, value: SecretStr | None) -> SecretStr | None:
        for url in value.get_secret_value().split(";") if value else ():
            try:
                parts = urlsplit(url)
                # The hosts of a Sentinel or a cluster are looked at where they are connected to.
                sound = bool(parts.scheme) and ("+" in parts.scheme or parts.port != 0)
            except ValueError:
                sound = False
            if not sound:
                raise ValueError(
                    "is no URL; write scheme://user:PASSWORD@host:port/path, the port from 1 to 65535 and "
                    "the password percent-encoded"
                )
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        known = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        if value.upper() not in known:
            raise ValueError(f"{value!r} is no log level; use one of {', '.join(known)}")
        return value.upper()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.error_log_encryption_enabled and self.environment is not Environment.DEVELOPMENT:
            raise ValueError(
                "error_log_encryption_enabled=false is refused outside development: "
                "remove it, or set TECHDECK_ENVIRONMENT=development"
            )
        if self.task_soft_time_limit_seconds >= self.task_time_limit_seconds:
            raise ValueError(
                f"task_soft_time_limit_seconds ({self.task_soft_time_limit_seconds}) must be below "
                f"task_time_limit_seconds ({self.task_time_limit_seconds})"
            )
        if self.upload_max_bytes > self.upload_max_kept_bytes:
            raise ValueError(
                f"upload_max_bytes ({self.upload_max_bytes}) must not exceed "
                f"upload_max_kept_bytes ({self.upload_max_kept_bytes}): no file of that size could come in"
            )
        longest = max(self.task_time_limit_seconds, self.default_retry_cap_seconds)
        if self.visibility_timeout_seconds <= longest:
            raise ValueError(
                f"visibility_timeout_seconds ({self.visibility_timeout_seconds}) must exceed the longest "
                f"task and retry delay ({longest:g}): Redis would run the task twice"
            )
        return self

    @property
    def effective_broker_url(self) -> SecretStr:
        """Celery's broker."""
        return self.broker_url or self.redis_url

    @property
    def effective_result_backend_url(self) -> SecretStr:
        """Celery's result store."""
        return self.result_backend_url or self.redis_url


def settings_files() -> list[Path]:
    """Return the file and the folder that this process reads settings from, whether they are there or not."""
    return [Path(name) for name in _sources() if name]


def _sources() -> tuple[str, str | None]:
    env_file = os.environ.get(f"{ENV_PREFIX}ENV_FILE", DEFAULT_ENV_FILE)
    return env_file, os.environ.get(f"{ENV_PREFIX}SECRETS_DIR")


def unknown_settings(names: Iterable[str]) -> list[tuple[str, str | None]]:
    """Return those of `names` that begin as a setting does and are none, each with the one it is like."""
    known = {f"{ENV_PREFIX}{field}".upper() for field in Settings.model_fields} | _NO_FIELDS
    strange = (name for name in names if name.upper().startswith(ENV_PREFIX) and name.upper() not in known)
    return [(name, nearest(name.upper(), known)) for name in strange]


def _check_file(name: str) -> None:
    """Refuse a settings file that pydantic would pass over, in part or as a whole."""
    try:
        unknown = unknown_settings(read_settings_file(Path(name)))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if unknown:
        told = "; ".join(said + (f", did you mean {near}?" if near else "") for said, near in unknown)
        raise SettingsError(f"settings file {name} names what is no setting: {told}")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings of this process.

    Raises:
        SettingsError: one line for each variable that is malformed, with the value's limit, never the value.
    """
    env_file, secrets_dir = _sources()
    # Nobody named the default, and outside the folder of `techdeck up` it is not there.
    if env_file and (env_file != DEFAULT_ENV_FILE or Path(env_file).exists()):
        _check_file(env_file)
    if secrets_dir and not Path(secrets_dir).is_dir():
        raise SettingsError(
            f"{ENV_PREFIX}SECRETS_DIR names {secrets_dir}, which is no folder; mount it, or unset it"
        )
    try:
        return Settings(_env_file=env_file, _secrets_dir=secrets_dir or None, **overrides)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            said = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{ENV_PREFIX}{name}: {said}" if name else said)
        raise SettingsError("; ".join(lines)) from None
    except pydantic_settings.SettingsError as error:
        # Its text names the field and the source; its cause holds the value.
        if isinstance(error.__cause__, UnicodeDecodeError):
            raise SettingsError(f"a secret's file is not UTF-8: {error}") from None
        raise SettingsError(f"a setting that must be JSON is not: {error}") from None

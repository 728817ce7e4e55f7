"""The error taxonomy, the classification of foreign exceptions and the safe response."""

from techdeck_tasks.errors.base import (
    RetryRule,
    Severity,
    TechDeckError,
    describe_error,
    lookup,
    registered_codes,
)
from techdeck_tasks.errors.classification import Classification, classify, is_control_flow, register_mapping
from techdeck_tasks.errors.conversion import approachable, as_techdeck_error, error_id_of, kind_of
from techdeck_tasks.errors.recognition import CONTROL_FLOW
from techdeck_tasks.errors.taxonomy import (
    AuthenticationError,
    AuthorizationError,
    BiasDetectionError,
    CircuitBreakerError,
    ConnectionFailedError,
    DataProcessingError,
    EncryptionError,
    FallbackFailedError,
    FileUploadError,
    HIPAAComplianceError,
    InternalError,
    PipelineExecutionError,
    RateLimitError,
    RetryExhaustedError,
    ServiceUnavailableError,
    TimeoutError,  # noqa: A004 - the specification's name
    ValidationError,
    WorkerLostError,
)
from techdeck_tasks.errors.verdict import Verdict

__all__ = [
    "CONTROL_FLOW",
    "AuthenticationError",
    "AuthorizationError",
    "BiasDetectionError",
    "CircuitBreakerError",
    "Classification",
    "ConnectionFailedError",
    "DataProcessingError",
    "EncryptionError",
    "FallbackFailedError",
    "FileUploadError",
    "HIPAAComplianceError",
    "InternalError",
    "PipelineExecutionError",
    "RateLimitError",
    "RetryExhaustedError",
    "RetryRule",
    "ServiceUnavailableError",
    "Severity",
    "TechDeckError",
    "TimeoutError",
    "ValidationError",
    "Verdict",
    "WorkerLostError",
    "approachable",
    "as_techdeck_error",
    "classify",
    "describe_error",
    "error_id_of",
    "is_control_flow",
    "kind_of",
    "lookup",
    "register_mapping",
    "registered_codes",
]

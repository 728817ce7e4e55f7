"""What a caller may read of each code: a text without data, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from techdeck_tasks.errors.base import TechDeckError, lookup


@dataclass(frozen=True, slots=True)
class Guidance:
    """Texts of one code.

    Attributes:
        title: a few words, the same for each occurrence (RFC 9457's `title`).
        message: stands in for a foreign exception's text, which no caller may see.
        advice: what the caller can do.
    """

    title: str
    message: str
    advice: str


_GUIDANCE = {
    "TECHDECK_ERROR": Guidance(
        "Error",
        "The request could not be completed.",
        "An error occurred. Please try again or contact support.",
    ),
    "AUTH_ERROR": Guidance(
        "Authentication failed",
        "Authentication failed.",
        "Please check your credentials and try again.",
    ),
    "AUTHZ_ERROR": Guidance(
        "Not permitted",
        "Permission for this operation is missing.",
        "Please ask an administrator for the permission this operation needs.",
    ),
    "VALIDATION_ERROR": Guidance(
        "Invalid input", "The input is not valid.", "Please check your input data and try again."
    ),
    "PIPELINE_ERROR": Guidance(
        "Pipeline failed",
        "The pipeline could not be completed.",
        "Please look at the failed stage of the run, mend its cause and resume the run from there.",
    ),
    "DATA_PROCESSING_ERROR": Guidance(
        "Data processing failed",
        "The data could not be processed.",
        "Please check the dataset against the schema of the stage that failed, then resume the run.",
    ),
    "FILE_UPLOAD_ERROR": Guidance(
        "Upload failed",
        "The file could not be accepted.",
        "Please check your file format and size, then try again.",
    ),
    "ENCRYPTION_ERROR": Guidance(
        "Encryption failed",
        "Data could not be encrypted or decrypted.",
        "Please contact support with the support reference; do not send the data another way.",
    ),
    "HIPAA_COMPLIANCE_ERROR": Guidance(
        "Stopped by a safeguard",
        "The operation was stopped by a safeguard for health information.",
        "Please contact your compliance officer with the support reference; do not repeat the operation.",
    ),
    "RATE_LIMIT_ERROR": Guidance(
        "Rate limit exceeded",
        "The rate limit is exceeded.",
        "You have exceeded the rate limit. Please wait and try again later.",
    ),
    "SERVICE_UNAVAILABLE": Guidance(
        "Service unavailable",
        "A service that is needed is temporarily unavailable.",
        "The service is temporarily unavailable. Please try again later.",
    ),
    "CONNECTION_ERROR": Guidance(
        "Connection failed",
        "A connection to a service could not be made or broke.",
        "Please try again in a few moments; contact support if it goes on.",
    ),
    "CIRCUIT_BREAKER_ERROR": Guidance(
        "Service paused",
        "A service failed repeatedly and is not called for the moment.",
        "Please wait until the service has recovered, then try again.",
    ),
    "TIMEOUT_ERROR": Guidance(
        "Timed out",
        "The operation took longer than it may.",
        "The operation timed out. Please try again with a smaller dataset.",
    ),
    "BIAS_DETECTION_ERROR": Guidance(
        "Bias found",
        "The measured bias exceeds its threshold.",
        "Please review the dataset and the bias report before the results are used.",
    ),
    "RETRY_EXHAUSTED": Guidance(
        "All attempts failed",
        "The operation failed on every attempt.",
        "Please contact support with the support reference; it can be replayed once its cause is mended.",
    ),
    "FALLBACK_FAILED": Guidance(
        "Fallback failed",
        "The operation and its fallback both failed.",
        "Please contact support with the support reference.",
    ),
    "WORKER_LOST": Guidance(
        "Worker lost",
        "The process that did the work was lost.",
        "Please try again with a smaller dataset, or contact support if it goes on.",
    ),
    "INTERNAL_ERROR": Guidance(
        "Internal error",
        "An internal error occurred. Please try again later.",
        "Please contact support with the support reference if it goes on.",
    ),
    "AUDIT_UNAVAILABLE": Guidance(
        "Audit log unavailable",
        "The operation was stopped because it could not be recorded in the audit log.",
        "Please try again later; an administrator must restore the audit log.",
    ),
}


def guidance_for(code: str) -> Guidance:
    """Return the texts of `code`; of an application's own code those of its nearest base class."""
    found = _GUIDANCE.get(code)
    if found is not None:
        return found
    try:
        bases = lookup(code).__mro__
    except KeyError:
        bases = ()
    for base in bases:
        if issubclass(base, TechDeckError) and base.code in _GUIDANCE:
            return _GUIDANCE[base.code]
    return _GUIDANCE[TechDeckError.code]

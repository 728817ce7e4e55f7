"""Exceptions of HTTP clients, judged by status code and Retry-After where there was an answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from techdeck_tasks.errors.base import RetryRule
from techdeck_tasks.errors.mappings.standard_library import of_cause
from techdeck_tasks.errors.verdict import DEFECT, MISUSE, Target, Verdict, internal, otherwise

LONGEST_RETRY_AFTER = timedelta(days=30)
"""A longer Retry-After is a mistake of the other side, and would overflow later sums."""

_EPOCH_FROM = 1_000_000_000
"""A rate limit's reset at or above this many seconds is a moment since 1970, below it a distance."""

_CODE_OF_STATUS = {
    401: "AUTH_ERROR",
    403: "AUTHZ_ERROR",
    407: "AUTH_ERROR",
    408: "TIMEOUT_ERROR",
    413: "FILE_UPLOAD_ERROR",
    423: "SERVICE_UNAVAILABLE",
    425: "SERVICE_UNAVAILABLE",
    429: "RATE_LIMIT_ERROR",
    504: "TIMEOUT_ERROR",
    524: "TIMEOUT_ERROR",
}

_NO_ANSWER = internal("an error of an HTTP client without an answer or a cause that says more")
_NOT_IMPLEMENTED = internal("the other side will never do what it was asked for", RetryRule.NEVER)
_CERTIFICATE_REFUSED = Verdict("CONNECTION_ERROR", retry_rule=RetryRule.NEVER)
_WRONG_ADDRESS = Verdict("VALIDATION_ERROR")

_LOWEST_ERROR = 400
_LOWEST_SERVER_ERROR = 500
_STATUS_NOT_IMPLEMENTED = frozenset({501, 505, 510})


def code_of_status(status: int) -> str | None:
    """Return the code for the status an HTTP service answered with; None below 400."""
    if status < _LOWEST_ERROR:
        return None
    known = _CODE_OF_STATUS.get(status)
    if known is not None:
        return known
    return "SERVICE_UNAVAILABLE" if status >= _LOWEST_SERVER_ERROR else "VALIDATION_ERROR"


def retry_at_of(headers: Any, now: datetime) -> datetime | None:
    """Return when an answer asks to be tried again, from Retry-After or a rate limit's reset; aware UTC.

    Both forms of RFC 9110 section 10.2.3 are read: seconds and a date. What is malformed counts as absent.
    """
    if not isinstance(headers, Mapping) and not hasattr(headers, "get"):
        return None
    for name in ("Retry-After", "RateLimit-Reset", "X-RateLimit-Reset"):
        # botocore gives a plain dict with lower-case names, the others a case-insensitive mapping.
        value = headers.get(name) or headers.get(name.lower())
        if isinstance(value, (str, bytes, int, float)):
            moment = _moment(value.decode("latin-1") if isinstance(value, bytes) else str(value), now)
            if moment is not None:
                return moment
    return None


def _moment(value: str, now: datetime) -> datetime | None:
    value = value.strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return min(moment, now + LONGEST_RETRY_AFTER)
    if not 0 <= seconds < float("inf"):
        return None
    if seconds >= _EPOCH_FROM:
        seconds -= now.timestamp()
    return now + timedelta(seconds=min(max(seconds, 0.0), LONGEST_RETRY_AFTER.total_seconds()))


def verdict_of_answer(status: Any, headers: Any) -> Verdict | None:
    """Judge the answer of an HTTP service; None where `status` is no error status."""
    if not isinstance(status, int):
        return None
    if status in _STATUS_NOT_IMPLEMENTED:
        return _NOT_IMPLEMENTED
    code = code_of_status(status)
    if code is None:
        return None
    return Verdict(code, retry_at=retry_at_of(headers, datetime.now(UTC)))


def of_response(error: BaseException) -> Verdict | None:
    """Judge an exception that holds its answer as `response` (requests, httpx)."""
    response = getattr(error, "response", None)
    if response is None:  # `not response` would be wrong: that of requests is falsy on 4xx and 5xx
        return None
    return verdict_of_answer(getattr(response, "status_code", None), getattr(response, "headers", None))


def of_own_status(error: BaseException) -> Verdict | None:
    """Judge an exception that is its own answer (aiohttp, urllib, kombu, starlette)."""
    status: Any = None
    for name in ("status", "code", "status_code"):
        status = getattr(error, name, None)
        if isinstance(status, int):
            break
    return verdict_of_answer(status, getattr(error, "headers", None))


# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and botocore's throttling codes.
_CODES_OF_AWS = {
    "AUTH_ERROR": (
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    ),
    "AUTHZ_ERROR": ("AccessDenied", "AccessDeniedException", "AllAccessDisabled", "UnauthorizedOperation"),
    "RATE_LIMIT_ERROR": (
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    ),
    "TIMEOUT_ERROR": ("RequestTimeout", "RequestTimeoutException"),
}
_CODE_OF_AWS_CODE = {name: code for code, names in _CODES_OF_AWS.items() for name in names}


def of_boto_client_error(error: BaseException) -> Verdict | None:
    """Judge botocore's ClientError by AWS's error code, then by status."""
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        return None
    metadata = response.get("ResponseMetadata") or {}
    headers = metadata.get("HTTPHeaders") if isinstance(metadata, Mapping) else None
    described = response.get("Error")
    name = described.get("Code") if isinstance(described, Mapping) else None
    code = _CODE_OF_AWS_CODE.get(str(name))
    if code is not None:
        return Verdict(code, retry_at=retry_at_of(headers, datetime.now(UTC)))
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
    if status is None and isinstance(name, str) and name.isdecimal():
        status = int(name)  # HeadObject has no body, so the error code is the status
    return verdict_of_answer(status, headers)


MAPPINGS: dict[str, Target] = {
    # -- requests ----------------------------------------------------------------------------------
    "requests.exceptions.RequestException": otherwise(of_response, _NO_ANSWER),
    "requests.exceptions.ConnectionError": "CONNECTION_ERROR",
    "requests.exceptions.SSLError": _CERTIFICATE_REFUSED,
    "requests.exceptions.Timeout": "TIMEOUT_ERROR",
    "requests.exceptions.ConnectTimeout": "TIMEOUT_ERROR",
    "requests.exceptions.ChunkedEncodingError": "CONNECTION_ERROR",
    "requests.exceptions.ContentDecodingError": "CONNECTION_ERROR",
    "requests.exceptions.RetryError": "SERVICE_UNAVAILABLE",
    "requests.exceptions.TooManyRedirects": _WRONG_ADDRESS,
    "requests.exceptions.InvalidURL": _WRONG_ADDRESS,
    "requests.exceptions.InvalidSchema": _WRONG_ADDRESS,
    "requests.exceptions.MissingSchema": _WRONG_ADDRESS,
    "requests.exceptions.URLRequired": _WRONG_ADDRESS,
    "requests.exceptions.InvalidHeader": MISUSE,
    "requests.exceptions.InvalidJSONError": "VALIDATION_ERROR",
    "requests.exceptions.StreamConsumedError": DEFECT,
    "requests.exceptions.UnrewindableBodyError": DEFECT,
    "requests.cookies.CookieConflictError": MISUSE,
    # -- httpx and httpcore ------------------------------------------------------------------------
    "httpx.HTTPStatusError": otherwise(of_response, _NO_ANSWER),
    "httpx.HTTPError": _NO_ANSWER,
    "httpx.RequestError": _NO_ANSWER,
    "httpx.TransportError": "CONNECTION_ERROR",
    "httpx.TimeoutException": "TIMEOUT_ERROR",
    "httpx.UnsupportedProtocol": _WRONG_ADDRESS,
    "httpx.LocalProtocolError": MISUSE,
    "httpx.DecodingError": "CONNECTION_ERROR",
    "httpx.TooManyRedirects": _WRONG_ADDRESS,
    "httpx.InvalidURL": _WRONG_ADDRESS,
    "httpx.CookieConflict": MISUSE,
    "httpx.StreamError": DEFECT,
    "httpcore.ConnectionNotAvailable": "SERVICE_UNAVAILABLE",
    "httpcore.NetworkError": "CONNECTION_ERROR",
    "httpcore.ProtocolError": "CONNECTION_ERROR",
    "httpcore.LocalProtocolError": MISUSE,
    "httpcore.ProxyError": "CONNECTION_ERROR",
    "httpcore.TimeoutException": "TIMEOUT_ERROR",
    "httpcore.UnsupportedProtocol": _WRONG_ADDRESS,
    # -- urllib3 and urllib ------------------------------------------------------------------------
    "urllib3.exceptions.HTTPError": _NO_ANSWER,
    "urllib3.exceptions.BodyNotHttplibCompatible": MISUSE,
    "urllib3.exceptions.DecodeError": "CONNECTION_ERROR",
    "urllib3.exceptions.HeaderParsingError": "CONNECTION_ERROR",
    "urllib3.exceptions.IncompleteRead": "CONNECTION_ERROR",
    "urllib3.exceptions.InvalidChunkLength": "CONNECTION_ERROR",
    "urllib3.exceptions.InvalidHeader": MISUSE,
    "urllib3.exceptions.LocationValueError": _WRONG_ADDRESS,
    "urllib3.exceptions.MaxRetryError": of_cause,
    "urllib3.exceptions.PoolError": "CONNECTION_ERROR",
    "urllib3.exceptions.EmptyPoolError": "SERVICE_UNAVAILABLE",
    "urllib3.exceptions.FullPoolError": "SERVICE_UNAVAILABLE",
    "urllib3.exceptions.ProtocolError": "CONNECTION_ERROR",
    "urllib3.exceptions.ProxyError": "CONNECTION_ERROR",
    "urllib3.exceptions.ProxySchemeUnsupported": _WRONG_ADDRESS,
    "urllib3.exceptions.ResponseError": "SERVICE_UNAVAILABLE",
    "urllib3.exceptions.SSLError": _CERTIFICATE_REFUSED,
    "urllib3.exceptions.TimeoutError": "TIMEOUT_ERROR",
    "urllib3.exceptions.ReadTimeoutError": "TIMEOUT_ERROR",
    "urllib3.exceptions.NewConnectionError": "CONNECTION_ERROR",
    "urllib3.exceptions.TimeoutStateError": DEFECT,
    "urllib3.exceptions.UnrewindableBodyError": DEFECT,
    "urllib3.util.ssl_match_hostname.CertificateError": _CERTIFICATE_REFUSED,
    "urllib.error.HTTPError": otherwise(of_own_status, _NO_ANSWER),
    # -- aiohttp -----------------------------------------------------------------------------------
    "aiohttp.client_exceptions.ClientError": _NO_ANSWER,
    "aiohttp.client_exceptions.ClientResponseError": otherwise(of_own_status, _NO_ANSWER),
    "aiohttp.client_exceptions.ContentTypeError": "VALIDATION_ERROR",
    "aiohttp.client_exceptions.TooManyRedirects": _WRONG_ADDRESS,
    "aiohttp.client_exceptions.ClientConnectionError": "CONNECTION_ERROR",
    "aiohttp.client_exceptions.ClientConnectorCertificateError": _CERTIFICATE_REFUSED,
    "aiohttp.client_exceptions.ServerFingerprintMismatch": _CERTIFICATE_REFUSED,
    "aiohttp.client_exceptions.ServerTimeoutError": "TIMEOUT_ERROR",
    "aiohttp.client_exceptions.ClientPayloadError": "CONNECTION_ERROR",
    "aiohttp.client_exceptions.UploadAbortedError": "CONNECTION_ERROR",
    "aiohttp.client_exceptions.InvalidURL": _WRONG_ADDRESS,
    "aiohttp.client_exceptions.NonHttpUrlClientError": _WRONG_ADDRESS,
    "aiohttp.client_exceptions.RedirectClientError": _WRONG_ADDRESS,
    "aiohttp.client_exceptions.WSMessageTypeError": DEFECT,
    "aiohttp.http_exceptions.HttpProcessingError": otherwise(of_own_status, _NO_ANSWER),
    "aiohttp.http_exceptions.BadHttpMessage": "CONNECTION_ERROR",
    "aiohttp.compression_utils.TooManyMembersError": "VALIDATION_ERROR",
    "aiohttp._websocket.models.WebSocketError": "CONNECTION_ERROR",
    "aiohttp._websocket.models.WSHandshakeError": "CONNECTION_ERROR",
    "aiohttp.payload.LookupError": DEFECT,
    "aiohttp.streams.EofStream": "CONNECTION_ERROR",
    # -- botocore (S3 through fsspec) --------------------------------------------------------------
    "botocore.exceptions.ClientError": otherwise(of_boto_client_error, _NO_ANSWER),
    "botocore.exceptions.BotoCoreError": MISUSE,
    "botocore.exceptions.HTTPClientError": "CONNECTION_ERROR",
    "botocore.exceptions.ConnectionError": "CONNECTION_ERROR",
    "botocore.exceptions.ConnectTimeoutError": "TIMEOUT_ERROR",
    "botocore.exceptions.ReadTimeoutError": "TIMEOUT_ERROR",
    "botocore.exceptions.SSLError": _CERTIFICATE_REFUSED,
    "botocore.exceptions.ResponseStreamingError": "CONNECTION_ERROR",
    "botocore.exceptions.IncompleteReadError": "CONNECTION_ERROR",
    "botocore.exceptions.NoCredentialsError": "AUTH_ERROR",
    "botocore.exceptions.PartialCredentialsError": "AUTH_ERROR",
    "botocore.exceptions.CredentialRetrievalError": "AUTH_ERROR",
    "botocore.exceptions.TokenRetrievalError": "AUTH_ERROR",
    "botocore.exceptions.NoAuthTokenError": "AUTH_ERROR",
    "botocore.exceptions.SSOError": "AUTH_ERROR",
    "botocore.exceptions.RefreshWithMFAUnsupportedError": "AUTH_ERROR",
    "botocore.exceptions.MetadataRetrievalError": "SERVICE_UNAVAILABLE",
    "botocore.exceptions.ChecksumError": "CONNECTION_ERROR",
    "botocore.exceptions.FlexibleChecksumError": "CONNECTION_ERROR",
    "botocore.exceptions.WaiterError": "TIMEOUT_ERROR",
    "botocore.exceptions.MissingServiceIdError": MISUSE,
    "botocore.exceptions.UndefinedModelAttributeError": MISUSE,
    "botocore.model.InvalidShapeError": MISUSE,
    "botocore.model.InvalidShapeReferenceError": MISUSE,
    "botocore.model.NoShapeFoundError": MISUSE,
    "botocore.model.OperationNotFoundError": MISUSE,
    "botocore.utils.BadIMDSRequestError": "AUTH_ERROR",
    "botocore.parsers.ResponseParserError": "SERVICE_UNAVAILABLE",
    # -- below and beside --------------------------------------------------------------------------
    "starlette.exceptions.HTTPException": otherwise(of_own_status, _NO_ANSWER),
    "starlette.exceptions.WebSocketException": "VALIDATION_ERROR",
    "starlette.formparsers.MultiPartException": "VALIDATION_ERROR",
    "starlette.requests.ClientDisconnect": "CONNECTION_ERROR",
    "starlette.websockets.WebSocketDisconnect": "CONNECTION_ERROR",
    "h11._util.ProtocolError": "CONNECTION_ERROR",
    "h11._util.LocalProtocolError": DEFECT,
    "starlette.websockets.WebSocketDisconnected": "CONNECTION_ERROR",
    "starlette.responses.MalformedRangeHeader": "VALIDATION_ERROR",
    "starlette.responses.RangeNotSatisfiable": "VALIDATION_ERROR",
    "starlette.routing.NoMatchFound": DEFECT,
    "anyio._core._exceptions.ConnectionFailed": "CONNECTION_ERROR",
    "anyio._core._exceptions.DelimiterNotFound": "VALIDATION_ERROR",
    "anyio._core._exceptions.BusyResourceError": DEFECT,
    "anyio._core._exceptions.FutureAlreadyFinished": DEFECT,
    "anyio._core._exceptions.FutureFailed": DEFECT,
    "anyio._core._exceptions.FutureNotFinished": DEFECT,
    "anyio._core._exceptions.TaskFailed": DEFECT,
    "anyio._core._exceptions.TaskNotFinished": DEFECT,
    "anyio._core._exceptions.BrokenResourceError": "CONNECTION_ERROR",
    "anyio._core._exceptions.ClosedResourceError": "CONNECTION_ERROR",
    "anyio._core._exceptions.EndOfStream": "CONNECTION_ERROR",
    "anyio._core._exceptions.IncompleteRead": "CONNECTION_ERROR",
    "anyio._core._exceptions.WouldBlock": "SERVICE_UNAVAILABLE",
    "anyio._core._exceptions.BrokenWorkerProcess": "WORKER_LOST",
    "anyio._core._exceptions.BrokenWorkerInterpreter": "WORKER_LOST",
}

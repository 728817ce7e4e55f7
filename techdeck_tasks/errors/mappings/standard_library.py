"""Python's own exceptions: builtins, operating system, sockets, TLS, futures and data formats."""

from __future__ import annotations

import errno
import signal

from techdeck_tasks.errors.base import RetryRule
from techdeck_tasks.errors.verdict import (
    CONFIGURATION,
    DEFECT,
    MISUSE,
    WARNING,
    Target,
    Verdict,
    internal,
    otherwise,
)

_CONNECTION = (
    "ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ENETUNREACH ENETDOWN ENETRESET EHOSTUNREACH EHOSTDOWN "
    "ENOTCONN EADDRNOTAVAIL ESHUTDOWN EPROTO"
)
_EXHAUSTED = (
    "ENOSPC EDQUOT EMFILE ENFILE EAGAIN EBUSY ENOMEM ENOBUFS ENOLCK ETXTBSY ESTALE EDEADLK EINTR EIO "
    "EADDRINUSE EINPROGRESS EALREADY EREMOTEIO EUSERS"
)
_FORBIDDEN = "EACCES EPERM EKEYEXPIRED EKEYREVOKED EKEYREJECTED"
_WRONG_NAME = "ENOENT EEXIST ENOTDIR EISDIR ENAMETOOLONG ELOOP ENOTEMPTY EILSEQ"
_TOO_LARGE = "EFBIG EMSGSIZE"

_CODE_OF_ERRNO: dict[int, str] = {
    getattr(errno, name): code
    for names, code in (
        (_CONNECTION, "CONNECTION_ERROR"),
        (_EXHAUSTED, "SERVICE_UNAVAILABLE"),
        (_FORBIDDEN, "AUTHZ_ERROR"),
        (_WRONG_NAME, "VALIDATION_ERROR"),
        (_TOO_LARGE, "FILE_UPLOAD_ERROR"),
        ("ETIMEDOUT ETIME", "TIMEOUT_ERROR"),
    )
    for name in names.split()
    if hasattr(errno, name)
}

_UNKNOWN_OS_ERROR = internal("an operating system error without a number that says more")
_CERTIFICATE_REFUSED = Verdict("CONNECTION_ERROR", retry_rule=RetryRule.NEVER)
"""The other side is not who it says it is; that does not pass by waiting."""


def of_os_error(error: BaseException) -> Verdict | str | None:
    """Judge an OSError by its number."""
    number = getattr(error, "errno", None)
    return _CODE_OF_ERRNO.get(number, _UNKNOWN_OS_ERROR) if number is not None else _UNKNOWN_OS_ERROR


def of_called_process(error: BaseException) -> Verdict | str | None:
    """Judge a failed command: killed by SIGKILL means, as a rule, out of memory."""
    return "WORKER_LOST" if getattr(error, "returncode", None) == -signal.SIGKILL else None


def of_cause(error: BaseException) -> BaseException | None:
    """Judge what is inside an `URLError`: its `reason` is an exception, or a text."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, BaseException) else None


MAPPINGS: dict[str, Target] = {
    # -- builtins ----------------------------------------------------------------------------------
    "builtins.ArithmeticError": DEFECT,
    "builtins.AssertionError": DEFECT,
    "builtins.AttributeError": DEFECT,
    "builtins.BufferError": DEFECT,
    "builtins.EOFError": "VALIDATION_ERROR",
    "builtins.ImportError": CONFIGURATION,
    "builtins.LookupError": DEFECT,
    "builtins.MemoryError": "WORKER_LOST",
    "builtins.NameError": DEFECT,
    "builtins.ReferenceError": DEFECT,
    "builtins.RuntimeError": DEFECT,
    "builtins.StopAsyncIteration": DEFECT,
    "builtins.StopIteration": DEFECT,
    "builtins.SyntaxError": DEFECT,
    "builtins.SystemError": DEFECT,
    "builtins.TypeError": DEFECT,
    "builtins.ValueError": DEFECT,
    "builtins.Warning": WARNING,
    "builtins.UnicodeError": "VALIDATION_ERROR",
    "builtins.GeneratorExit": internal("control flow; never handled as an error"),
    "builtins.KeyboardInterrupt": internal("control flow; never handled as an error"),
    "builtins.SystemExit": internal("control flow; never handled as an error"),
    # -- operating system --------------------------------------------------------------------------
    "builtins.OSError": of_os_error,
    "builtins.BlockingIOError": "SERVICE_UNAVAILABLE",
    "builtins.ChildProcessError": DEFECT,
    "builtins.ConnectionError": "CONNECTION_ERROR",
    "builtins.FileExistsError": "VALIDATION_ERROR",
    "builtins.FileNotFoundError": "VALIDATION_ERROR",
    "builtins.InterruptedError": "SERVICE_UNAVAILABLE",
    "builtins.IsADirectoryError": "VALIDATION_ERROR",
    "builtins.NotADirectoryError": "VALIDATION_ERROR",
    "builtins.PermissionError": "AUTHZ_ERROR",
    "builtins.ProcessLookupError": DEFECT,
    "builtins.TimeoutError": "TIMEOUT_ERROR",
    "shutil.Error": of_os_error,
    "shutil.ReadError": "VALIDATION_ERROR",
    "shutil.RegistryError": MISUSE,
    "subprocess.SubprocessError": internal("a command failed; only its own text says why"),
    "subprocess.CalledProcessError": of_called_process,
    "subprocess.TimeoutExpired": "TIMEOUT_ERROR",
    # -- sockets and TLS ---------------------------------------------------------------------------
    "socket.gaierror": "CONNECTION_ERROR",
    "socket.herror": "CONNECTION_ERROR",
    "ssl.SSLError": "CONNECTION_ERROR",
    "ssl.SSLCertVerificationError": _CERTIFICATE_REFUSED,
    # -- waiting and working together --------------------------------------------------------------
    "asyncio.exceptions.CancelledError": "SERVICE_UNAVAILABLE",
    "asyncio.exceptions.BrokenBarrierError": DEFECT,
    "asyncio.exceptions.IncompleteReadError": "CONNECTION_ERROR",
    "asyncio.exceptions.InvalidStateError": DEFECT,
    "asyncio.exceptions.LimitOverrunError": "VALIDATION_ERROR",
    "asyncio.exceptions.SendfileNotAvailableError": DEFECT,
    "asyncio.queues.QueueEmpty": DEFECT,
    "asyncio.queues.QueueFull": "SERVICE_UNAVAILABLE",
    "asyncio.queues.QueueShutDown": "SERVICE_UNAVAILABLE",
    "queue.Full": "SERVICE_UNAVAILABLE",
    "_queue.Empty": DEFECT,
    "queue.ShutDown": "SERVICE_UNAVAILABLE",
    "concurrent.futures._base.Error": DEFECT,
    "concurrent.futures._base.CancelledError": "SERVICE_UNAVAILABLE",
    "concurrent.futures._base.TimeoutError": "TIMEOUT_ERROR",
    "concurrent.futures._base.BrokenExecutor": "WORKER_LOST",
    "concurrent.futures.process._RemoteTraceback": DEFECT,
    "threading.BrokenBarrierError": DEFECT,
    "multiprocessing.context.ProcessError": DEFECT,
    "multiprocessing.context.AuthenticationError": "AUTH_ERROR",
    "multiprocessing.context.TimeoutError": "TIMEOUT_ERROR",
    # -- formats: what is read is not what it was said to be ---------------------------------------
    "json.decoder.JSONDecodeError": "VALIDATION_ERROR",
    "_csv.Error": "VALIDATION_ERROR",
    "binascii.Error": "VALIDATION_ERROR",
    "binascii.Incomplete": "VALIDATION_ERROR",
    "configparser.Error": CONFIGURATION,
    "decimal.DecimalException": "VALIDATION_ERROR",
    "email.errors.MessageError": "VALIDATION_ERROR",
    "pickle.PickleError": DEFECT,
    "_pickle.PickleError": DEFECT,
    "struct.error": "VALIDATION_ERROR",
    "tarfile.TarError": "VALIDATION_ERROR",
    "tomllib.TOMLDecodeError": "VALIDATION_ERROR",
    "xml.etree.ElementTree.ParseError": "VALIDATION_ERROR",
    "xml.parsers.expat.ExpatError": "VALIDATION_ERROR",
    "zipfile.BadZipFile": "VALIDATION_ERROR",
    "zipfile.LargeZipFile": "FILE_UPLOAD_ERROR",
    "gzip.BadGzipFile": "VALIDATION_ERROR",
    "zlib.error": "VALIDATION_ERROR",
    "_lzma.LZMAError": "VALIDATION_ERROR",
    # -- urllib and http ---------------------------------------------------------------------------
    "urllib.error.URLError": otherwise(of_cause, "CONNECTION_ERROR"),
    "urllib.error.ContentTooShortError": "CONNECTION_ERROR",
    "http.client.HTTPException": "CONNECTION_ERROR",
    "http.client.ImproperConnectionState": DEFECT,
    "http.client.InvalidURL": "VALIDATION_ERROR",
    "http.cookies.CookieError": "VALIDATION_ERROR",
}

"""What callers give errors to, by where they come from. `flow` says what becomes of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from techdeck_tasks.errors import Classification, approachable, classify
from techdeck_tasks.errors.record import columns_of, said
from techdeck_tasks.errors.response import Response, as_http, build_response, valid_request_id
from techdeck_tasks.events import Outcome
from techdeck_tasks.handler.flow import Case, ErrorFlow, HandledError

logger = logging.getLogger(__name__)

PipelineHook = Callable[[str, Response], None]
UploadHook = Callable[[str, Response], None]


@dataclass(kw_only=True, eq=False)
class ErrorHandler(ErrorFlow):
    """The specification's handler, with thin forms for ASGI that run in a thread.

    Its attributes are those of `ErrorFlow`, and these.

    Attributes:
        on_pipeline_error: is told (pipeline_id, response), to mark the run.
        clean_up_upload: is told (upload_id, response), to remove what was stored of it.
        on_upload_failed: is told (upload_id, response) after that.
    """

    on_pipeline_error: PipelineHook | None = None
    clean_up_upload: UploadHook | None = None
    on_upload_failed: UploadHook | None = None

    def log_security_incident(
        self,
        error: BaseException,
        classification: Classification | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Put a security incident on record and return it under the specification's keys.

        `handle` does so by itself for the codes in `SECURITY_CODES`; this is for what an application finds
        out otherwise. However often one error is reported, it becomes one incident to investigate.

        Raises:
            AuditUnavailableError: it could be recorded nowhere and the fail policy is closed.
        """
        facts = dict(context) if context else {}
        error = approachable(error)
        found = classification or classify(error, facts)
        case = Case(error, found, columns_of(error, facts), Outcome.RESPONDED)
        return self._report_incident(case, facts)

    def handle_error(self, error: BaseException, context: Mapping[str, Any] | None = None) -> Response:
        """Handle `error` and return the response to a caller."""
        return self.handle(error, context).response

    def handle_api_error(
        self, error: BaseException, request_facts: Mapping[str, Any]
    ) -> tuple[int, dict[str, str], Response]:
        """Handle an error of an HTTP request; return status, headers and body.

        Args:
            error: any exception.
            request_facts: `request_method`, `request_url`, `client_ip`, `user_agent`, `request_id`.
        """
        request_id = valid_request_id(request_facts.get("request_id"))
        facts = {"service": "web", "operation": "request", **request_facts, "request_id": request_id}
        handled = self.handle(error, facts)
        return as_http(handled.response, handled.classification.retry_at, request_id, self.clock.now())

    def answer_api_error(
        self, error: BaseException, request_facts: Mapping[str, Any]
    ) -> tuple[int, dict[str, str], Response]:
        """Return what `handle_api_error` would, but tell and record nothing.

        For what any anonymous caller can cause at will, such as a wrong path: it would fill a log that is
        kept for years; and for the error that says that nothing can be recorded.
        """
        error = approachable(error)
        found = classify(error)
        response = build_response(
            error,
            found,
            documentation_base_url=self.documentation_base_url,
            timestamp=self.clock.now(),
        )
        request_id = valid_request_id(request_facts.get("request_id"))
        return as_http(response, found.retry_at, request_id, self.clock.now())

    def handle_pipeline_error(
        self,
        error: BaseException,
        pipeline_id: str,
        stage: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Response:
        """Handle an error of a pipeline's stage and mark the run."""
        response = self.handle_error(
            error,
            {
                "operation_type": "pipeline_execution",
                **(context or {}),
                "pipeline_id": pipeline_id,
                "stage": stage,
            },
        )
        _call(self.on_pipeline_error, pipeline_id, response)
        return response

    def handle_file_upload_error(
        self,
        error: BaseException,
        upload_id: str,
        filename: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Response:
        """Handle an error of an upload, remove what was stored of it, and tell of the failure."""
        response = self.handle_error(
            error,
            {
                "operation_type": "file_upload",
                **(context or {}),
                "upload_id": upload_id,
                "filename": filename,
            },
        )
        _call(self.clean_up_upload, upload_id, response)
        _call(self.on_upload_failed, upload_id, response)
        return response

    # -- for ASGI ----------------------------------------------------------------------------------

    async def ahandle(
        self,
        error: BaseException,
        context: Mapping[str, Any] | None = None,
        *,
        outcome: Outcome = Outcome.RESPONDED,
    ) -> HandledError:
        """Do `handle` in a thread: recording waits for Redis or a disk."""
        return await asyncio.to_thread(self.handle, error, context, outcome=outcome)

    async def ahandle_error(self, error: BaseException, context: Mapping[str, Any] | None = None) -> Response:
        """Do `handle_error` in a thread."""
        return await asyncio.to_thread(self.handle_error, error, context)

    async def ahandle_api_error(
        self, error: BaseException, request_facts: Mapping[str, Any]
    ) -> tuple[int, dict[str, str], Response]:
        """Do `handle_api_error` in a thread."""
        return await asyncio.to_thread(self.handle_api_error, error, request_facts)

    async def ahandle_pipeline_error(
        self,
        error: BaseException,
        pipeline_id: str,
        stage: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Response:
        """Do `handle_pipeline_error` in a thread."""
        return await asyncio.to_thread(self.handle_pipeline_error, error, pipeline_id, stage, context)

    async def ahandle_file_upload_error(
        self,
        error: BaseException,
        upload_id: str,
        filename: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Response:
        """Do `handle_file_upload_error` in a thread."""
        return await asyncio.to_thread(self.handle_file_upload_error, error, upload_id, filename, context)


def _call(hook: Callable[[str, Response], None] | None, subject: str, response: Response) -> None:
    if hook is None:
        return
    try:
        hook(subject, response)
    except Exception as failure:  # noqa: BLE001 - the error is handled; what follows must not mask it
        logger.warning("a hook failed after error_id=%s: %s", response["error_id"], said(failure))

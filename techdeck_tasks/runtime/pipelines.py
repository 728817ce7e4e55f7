"""Pipelines, and the handler of every error on their way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.pipeline import tasks as pipeline_tasks
from techdeck_tasks.pipeline.data.artifacts import ArtifactStore
from techdeck_tasks.pipeline.data.boundary import Boundary
from techdeck_tasks.pipeline.data.data_url import is_remote, local_path
from techdeck_tasks.pipeline.runs.control import RunControl
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.pipeline.runs.operations import RunOperations
from techdeck_tasks.pipeline.runs.store import PipelineStore
from techdeck_tasks.pipeline.schedules import Schedules
from techdeck_tasks.pipeline.upload.record import UploadLimits
from techdeck_tasks.pipeline.upload.store import UploadStore
from techdeck_tasks.runtime.monitoring import Monitoring
from techdeck_tasks.settings import settings_files


class Pipelines(Monitoring):
    """Runs, schedules, uploads and artifacts."""

    @cached_property
    def handler(self) -> ErrorHandler:
        """The central error handler."""
        return ErrorHandler(
            audit=self.trail,
            listeners=self.listeners,
            clock=self.clock,
            retention_days=self.settings.error_log_retention_days,
            documentation_base_url=self.settings.documentation_base_url,
            recovery=self.recovery,
            on_pipeline_error=self._note_pipeline_error,
            clean_up_upload=lambda upload_id, _: self.uploads.cancel(upload_id),
            on_upload_failed=self.uploads.note_failure,
        )

    @cached_property
    def pipeline_store(self) -> PipelineStore:
        """The state of runs."""
        return PipelineStore(
            self.engine, self.cipher, self.clock, self._stage_lease, self.settings.stage_parts_at_once
        )

    @property
    def _stage_lease(self) -> timedelta:
        return timedelta(seconds=self.settings.stage_lease_seconds)

    @cached_property
    def uploads(self) -> UploadStore:
        """Files on their way in."""
        limits = UploadLimits(
            max_bytes=self.settings.upload_max_bytes,
            max_open=self.settings.upload_max_open,
            max_kept_bytes=self.settings.upload_max_kept_bytes,
        )
        return UploadStore(self.settings.upload_dir, limits, self.clock)

    def _note_pipeline_error(self, run_id: str, response: Mapping[str, Any]) -> None:
        self.pipeline_store.note_error(
            run_id, response["error_id"], response["error_code"], response["message"]
        )

    @cached_property
    def pipeline(self) -> PipelineEngine:
        """Runs pipelines."""
        assert self.app is not None, "pipelines are dispatched through an app: use create_app() or install()"
        return PipelineEngine(
            self.pipeline_store,
            self.artifacts,
            pipeline_tasks.CeleryDispatcher(self.app),
            self.clock,
            timedelta(seconds=self.settings.task_time_limit_seconds),
            upload_folder=self.settings.upload_dir,
            boundary=self.boundary,
        )

    @cached_property
    def boundary(self) -> Boundary:
        """Where data of pipelines may lie."""
        settings = self.settings
        folders = [settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir]
        folders += [settings.upload_dir, settings.audit_spool_dir]
        stores = filter(None, (settings.artifact_url, settings.audit_sink_url))
        folders += [local_path(url) for url in stores if not is_remote(url)]
        return Boundary((*folders, *settings_files()), settings.data_roots)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """The data handed from stage to stage."""
        return ArtifactStore(self.settings.artifact_url, self.cipher)

    @cached_property
    def runs(self) -> RunOperations:
        """Cancels, resumes and looks after runs."""
        return RunOperations(
            engine=self.pipeline,
            control=RunControl(self.engine, self.clock, self._stage_lease, self.settings.stage_parts_at_once),
            artifacts=self.artifacts,
            handler=self.handler,
            trail=self.trail,
            clock=self.clock,
            max_retries=self.settings.default_max_retries,
            artifact_retention=timedelta(hours=self.settings.artifact_retention_hours),
            audit_retention_days=self.settings.error_log_retention_days,
        )

    def collect(self) -> None:
        """Remove what was kept long enough: artifacts of runs, uploads, what killed processes left behind."""
        self.runs.collect()
        self.uploads.remove_abandoned(
            timedelta(hours=self.settings.upload_retention_hours),
            timedelta(hours=self.settings.upload_quarantine_hours),
        )

    @cached_property
    def schedules(self) -> Schedules:
        """Pipelines that beat starts."""
        return Schedules(self.engine, self.cipher, self.clock, self.pipeline)

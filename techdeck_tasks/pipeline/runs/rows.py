"""The rows of a stage, for people to look at: what it handed on, and what it set aside as bad."""

from __future__ import annotations

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.registry import QUARANTINE
from techdeck_tasks.pipeline.runs.reader import RunReader
from techdeck_tasks.pipeline.runs.view import StageView


def handed_on(store: RunReader, run_id: str, stage: str) -> ArtifactRef:
    """Return the rows that a stage handed on.

    Raises:
        PipelineExecutionError: there is no such run.
        ValidationError: the run has no such stage, or the stage has no rows that were kept.
    """
    found = _stage(store, run_id, stage)
    output = store.get_outputs(run_id, [stage]).get(stage)
    if output is None:
        raise ValidationError(f"stage {stage!r} has handed no rows on: it is {found.state}", field="stage")
    ref = ArtifactRef.from_dict(output)
    if len(ref.files) < len(ref.parts or (ref,)):
        raise ValidationError(
            f"the rows of stage {stage!r} went straight on to the next stage and were not kept; "
            "look at a later stage",
            field="stage",
        )
    return ref


def set_aside(store: RunReader, artifacts: ArtifactStore, run_id: str, stage: str) -> ArtifactRef:
    """Return the rows that a stage set aside; also of one that failed for it.

    Raises:
        PipelineExecutionError: there is no such run.
        ValidationError: the run has no such stage, or the stage has set nothing aside.
        ServiceUnavailableError, ConnectionFailedError: the store of artifacts could not be reached.
    """
    found = _stage(store, run_id, stage)
    reported = (found.report or {}).get(QUARANTINE)
    ref = ArtifactRef.from_dict(reported) if reported else artifacts.newest(run_id, stage, QUARANTINE)
    if ref is None:
        raise ValidationError(
            f"stage {stage!r} has set no rows aside: validation does, and this stage is {found.state}",
            field="stage",
        )
    return ref


def _stage(store: RunReader, run_id: str, stage: str) -> StageView:
    stages = {each.name: each for each in store.get_run(run_id).stages}
    if stage not in stages:
        raise ValidationError(
            f"run {run_id} has no stage {stage!r}; it has {', '.join(stages)}", field="stage"
        )
    return stages[stage]

"""The work of one attempt: a whole stage, one part of it, or the joining of its parts.

A part goes on with the like part of the stages that follow, as far as these work row by row on nothing else:
the rows are at hand, and need not be sealed, stored, opened and read again. Whatever fails ahead of its turn
is left to its turn, where its error belongs to it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pydantic
from celery.exceptions import SoftTimeLimitExceeded

from techdeck_tasks.errors import PipelineExecutionError
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.data.boundary import Boundary
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.definition import PipelineDefinition, StageSpec, as_one_line
from techdeck_tasks.pipeline.registry import INPUT, Piece, StageContext, StageParams, StageResult, find_stage
from techdeck_tasks.pipeline.runs.claim import StageStopped
from techdeck_tasks.pipeline.runs.parts import COUNT, MAX_PARTS, AheadResult, Part, part_name
from techdeck_tasks.pipeline.runs.state import StageState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """A stage's, or part's, result as it is stored."""

    output: ArtifactRef | None
    report: Mapping[str, Any]
    ahead: tuple[AheadResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Cut:
    """The stage is to wait for its parts; those of `pieces` that are not there yet are to be made.

    `rows` is how many rows all have together; None: that is not known yet.
    """

    pieces: tuple[Piece, ...] = ()
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt, and what it works with.

    Attributes:
        run_id: the run.
        definition: the run's.
        number: from 0.
        outputs: by stage of the run, what it handed on.
        artifacts: the store of artifacts.
        workspace: a private folder.
        upload_folder: as in `StageContext`.
        boundary: as in `StageContext`.
        report_progress: as in `StageContext`.
        check_cancelled: as in `StageContext`.
    """

    run_id: str
    definition: PipelineDefinition
    number: int
    outputs: Mapping[str, ArtifactRef]
    artifacts: ArtifactStore
    workspace: Path
    upload_folder: Path
    boundary: Boundary
    report_progress: Callable[[int, int | None], None]
    check_cancelled: Callable[[], None]

    def stage(self, spec: StageSpec, parts: Sequence[Part]) -> Done | Cut:
        """Do a stage whole, cut it, or join its parts where all have succeeded."""
        context, params = self._context(spec, spec.name), parsed(spec)
        kind = find_stage(spec.kind)
        partitioning = kind.partitioning
        with frame_errors(f"stage {spec.name!r}"):
            if partitioning is None:
                return self._written(context, kind.body(context, params))
            if parts and len(parts) == parts[0].piece[COUNT]:
                if any(part.state is not StageState.SUCCEEDED for part in parts):
                    return Cut()
                results = [StageResult(_ref(part.output), part.report) for part in parts]
                return self._written(context, partitioning.join(context, params, results))
            pieces = partitioning.pieces(context, params)
            if not 1 < len(pieces) <= MAX_PARTS:
                return self._written(context, kind.body(context, params))
        numbered = tuple({**piece, COUNT: len(pieces)} for piece in pieces)
        return Cut(numbered, context.input_rows if partitioning.split is None else None)

    def part(self, part: Part) -> Done:
        """Do one part of a stage, and of the stages that can go on with its rows."""
        spec = self.definition.stage(part.stage)
        number = int(part.name.rpartition("~")[2])
        context = self._context(spec, part.name, part.piece)
        following = self._follower(spec)
        with frame_errors(f"stage {spec.name!r}"):
            result = _part(spec, context)
            if following is None or not isinstance(result.output, pl.LazyFrame | pl.DataFrame):
                return self._written(context, result)
            rows = _collected(result.output)
        done: list[tuple[StageSpec, StageContext, StageResult, pl.DataFrame]] = [
            (spec, context, result, rows)
        ]
        while following is not None:
            self.check_cancelled()
            piece = {INPUT: number, COUNT: part.piece[COUNT]}
            context = self._context(following, part_name(following.name, number), piece, done[-1][3])
            try:
                with frame_errors(f"stage {following.name!r}"):
                    result = _part(following, context)
                    rows = _collected(result.output)
            except (StageStopped, SoftTimeLimitExceeded):
                raise
            except Exception as error:  # noqa: BLE001 - it will be met, and told, when its turn has come
                logger.info("part %s is left to its turn: %s", context.stage, type(error).__name__)
                break
            done.append((following, context, result, rows))
            following = self._follower(following)
        return self._delivered(done, number, part.piece[COUNT])

    def _delivered(
        self, done: list[tuple[StageSpec, StageContext, StageResult, pl.DataFrame]], number: int, count: int
    ) -> Done:
        """Write the rows of the last stage; those of the others have been used."""
        refs = [ArtifactRef.passed_on(rows.height) for *_, rows in done[:-1]]
        _, last, _, rows = done[-1]
        refs.append(last.write(rows))
        reports = [_checked(result.report, self.run_id, context.stage) for _, context, result, _ in done]
        ahead = [
            AheadResult(
                stage=spec.name,
                number=number,
                piece={INPUT: number, COUNT: count},
                output=ref.to_dict(),
                report=report,
                rows=ref.rows,
            )
            for (spec, *_), ref, report in zip(done, refs, reports, strict=True)
        ]
        return Done(refs[0], reports[0], tuple(ahead[1:]))

    def _follower(self, spec: StageSpec) -> StageSpec | None:
        """Return the one stage that needs `spec`, where it needs nothing else and works row by row."""
        needing = [other for other in self.definition.stages if spec.name in other.needs]
        if len(needing) != 1 or needing[0].needs != (spec.name,):
            return None
        partitioning = find_stage(needing[0].kind).partitioning
        if partitioning is None or partitioning.split is not None:
            return None
        return needing[0] if partitioning.row_wise(parsed(needing[0])) else None

    def _context(
        self, spec: StageSpec, name: str, piece: Piece | None = None, rows: pl.DataFrame | None = None
    ) -> StageContext:
        return StageContext(
            run_id=self.run_id,
            stage=name,
            attempt=self.number,
            source=self.definition.source,
            inputs={need: self.outputs[need] for need in spec.needs if need in self.outputs},
            artifacts=self.artifacts,
            workspace=self.workspace,
            upload_folder=self.upload_folder,
            boundary=self.boundary,
            piece=piece,
            rows_at_hand=rows,
            report_progress=self.report_progress,
            check_cancelled=self.check_cancelled,
        )

    def _written(self, context: StageContext, result: StageResult) -> Done:
        output = result.output
        if output is not None and not isinstance(output, ArtifactRef):
            output = context.write(output)
        return Done(output, _checked(result.report, self.run_id, context.stage))


def places_of(definition: PipelineDefinition) -> Iterator[tuple[str, str]]:
    """Yield every path and URL that a definition names, with its field."""
    yield "source.url", definition.source.url
    for spec in definition.stages:
        params = parsed(spec)
        if isinstance(params, StageParams):
            for name, url in params.places().items():
                yield f"stages.{spec.name}.params.{name}", url


def parsed(spec: StageSpec) -> pydantic.BaseModel:
    """Return a stage's parameters.

    Raises:
        ValidationError: this process knows others.
    """
    try:
        return find_stage(spec.kind).params.model_validate(spec.params)
    except pydantic.ValidationError as error:
        raise as_one_line(error, f"params of stage {spec.name!r}") from None


def _part(spec: StageSpec, context: StageContext) -> StageResult:
    kind = find_stage(spec.kind)
    body = (kind.partitioning and kind.partitioning.part) or kind.body
    return body(context, parsed(spec))


def _collected(output: Any) -> pl.DataFrame:
    if isinstance(output, pl.DataFrame):
        return output
    if not isinstance(output, pl.LazyFrame):
        raise TypeError("the next stage can go on with rows only")
    return output.collect(engine="streaming")


def _ref(output: dict[str, Any] | None) -> ArtifactRef | None:
    return None if output is None else ArtifactRef.from_dict(output)


def _checked(report: Mapping[str, Any], run_id: str, stage_name: str) -> dict[str, Any]:
    try:
        checked: dict[str, Any] = json.loads(json.dumps(dict(report), allow_nan=False))
    except (TypeError, ValueError):
        raise PipelineExecutionError(
            f"the report of stage {stage_name!r} is not JSON; report counts, rates and names",
            pipeline_id=run_id,
            stage=stage_name,
        ) from None
    return checked

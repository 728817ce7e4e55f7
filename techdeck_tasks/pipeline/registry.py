"""The kinds of stages: what the package brings, what an application registers, what its plugins bring.

    class HeadParams(BaseModel):
        rows: int = 5

    @stage("head", params=HeadParams, summary="keep the first rows")
    def head(context: StageContext, params: HeadParams) -> StageResult:
        return StageResult(context.input().head(params.rows))

The module must be imported before the Celery app registers the stages' tasks; or name it in the entry point
group ``techdeck_tasks.stages``, whose members are imported when stages are first looked up.
"""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict

from techdeck_tasks.errors import PipelineExecutionError, ValidationError
from techdeck_tasks.pipeline.data.boundary import Boundary

if TYPE_CHECKING:
    import polars as pl

    from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
    from techdeck_tasks.pipeline.definition import SourceSpec

Piece = Mapping[str, Any]
"""Where one part's share of the data lies: JSON-safe references and positions, no data."""

INPUT = "input"
"""The key of a piece that names a part of the input, by its number."""

QUARANTINE = "quarantine"
"""The artifact to which a stage writes rows that it sets aside, and the key of its report that refers to it:
what ``techdeck rows --bad`` shows."""

ENTRY_POINT_GROUP = "techdeck_tasks.stages"

_BUILT_IN = ("dataset_load", "file_upload", "validation", "data_processing", "bias_detection", "export")


class StageParams(BaseModel):
    """Base of a stage's parameters: unknown keys are refused. Also those of a stage with none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def places(self) -> dict[str, str]:
        """Return, by parameter, the paths and URLs where the stage reads or writes data for others.

        They are checked against `TECHDECK_DATA_ROOTS` before the run begins and before the stage does. Say so
        of a stage of your own that has some.
        """
        return {}


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage hands back.

    Attributes:
        output: the data for the stages that need this one: a frame, which the engine writes, or an artifact
            that is there already; None for no data.
        report: counts and rates, JSON-safe; never values of rows: it is stored in the clear.
    """

    output: pl.LazyFrame | pl.DataFrame | ArtifactRef | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What a stage may use.

    Attributes:
        run_id: the run, a UUID.
        stage: the stage's name in the definition.
        attempt: from 0.
        source: where the run's data comes from.
        inputs: the outputs of the stages it needs, in the order of `needs`; those without data are left out.
        artifacts: the store of artifacts.
        workspace: a local folder of this attempt, removed at its end.
        upload_folder: where the service keeps files that were sent to it.
        boundary: where data may lie.
        piece: of a part of the stage, its share of the data; None: it is done whole.
        rows_at_hand: the rows of a part that come from the stage before without an artifact.
        report_progress: takes rows done and rows in all (None: unknown); may be called often.
        check_cancelled: to be called between batches, as often as it fits: raises, and so ends the attempt,
            where its run was cancelled or the stage was given to another worker. Let what it raises pass.
    """

    run_id: str
    stage: str
    attempt: int
    source: SourceSpec
    inputs: Mapping[str, ArtifactRef]
    artifacts: ArtifactStore
    workspace: Path
    upload_folder: Path = Path(".techdeck/uploads")
    boundary: Boundary = field(default_factory=Boundary)
    piece: Piece | None = None
    rows_at_hand: pl.DataFrame | None = None
    report_progress: Callable[[int, int | None], None] = lambda _done, _total: None
    check_cancelled: Callable[[], None] = lambda: None

    def source_files(self) -> list[str]:
        """Return the files of the source: itself, or what its pattern finds, sorted.

        Raises:
            ValidationError: there is none.
            AuthorizationError: one of them may not be read.
            As `location.fetch`.
        """
        from techdeck_tasks.pipeline.data import location  # noqa: PLC0415 - it imports fsspec

        found = location.matches(self.source.url, self.boundary)
        self.boundary.check(("source.url", url) for url in found)
        return found

    def input_ref(self) -> ArtifactRef:
        """Return the input: the output of the first of `needs` that has one; the others are only waited for.

        Raises:
            ValidationError: no stage that this one needs hands data on.
        """
        for ref in self.inputs.values():
            number = None if self.piece is None else self.piece.get(INPUT)
            return ref if number is None else ref.parts[number]
        raise ValidationError(
            f"stage {self.stage!r} has no input; name a stage that hands data on in its `needs`",
            field="needs",
        )

    @property
    def input_rows(self) -> int:
        """The number of rows of `input`."""
        return self.input_ref().rows if self.rows_at_hand is None else self.rows_at_hand.height

    def input(self) -> pl.LazyFrame:
        """Return the rows of the input, lazily; of a part, its own."""
        if self.rows_at_hand is not None:
            return self.rows_at_hand.lazy()
        return self.artifacts.scan(self.input_ref(), self.workspace)

    def write(self, frame: pl.LazyFrame | pl.DataFrame, name: str = "output") -> ArtifactRef:
        """Write an artifact of this attempt; `name` tells apart several of one stage."""
        return self.artifacts.write(frame, self.run_id, self.stage, self.attempt, name=name)

    def write_parts(self, frame: pl.LazyFrame, part_bytes: int) -> ArtifactRef:
        """Write an artifact of as many files as it takes: the stages that follow row by row run on each.

        Args:
            frame: the rows; it is run once.
            part_bytes: a file has about so many bytes of rows in memory.
        """
        import polars as pl  # noqa: PLC0415 - whoever only names stages need not wait for it

        from techdeck_tasks.pipeline.data.artifacts import ArtifactRef  # noqa: PLC0415 - it imports Polars
        from techdeck_tasks.pipeline.data.batches import batches_of, row_bytes  # noqa: PLC0415 - so does this

        plain = self.workspace / "parts.parquet"
        with plain.open("wb") as file:
            frame.sink_parquet(file, compression="lz4")
        frame = pl.scan_parquet(plain, glob=False)
        rows = int(frame.select(pl.len()).collect().item())
        batches = batches_of(frame, rows, max(1, part_bytes // row_bytes(frame, rows)))
        written = [self.write(batch, f"output-{number:04}") for number, batch in enumerate(batches)]
        plain.unlink()
        return ArtifactRef.of_parts(written) if len(written) > 1 else written[0]


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How a kind of stage is done in parts, each a task of its own.

    Attributes:
        join: makes the stage's result from those of its parts, which come in order. Also what is to be judged
            by all rows, such as a threshold, is judged here.
        part: does one part; default: the kind's body. It may be done before the stage's turn, right after the
            part of the stage before: it must have no effect but what it returns and `StageContext.write`s.
        row_wise: whether, with such parameters, a part needs nothing but the like part of the input.
        split: cuts other data than the input; fewer than two pieces: the stage is done whole.
    """

    join: Callable[[StageContext, Any, Sequence[StageResult]], StageResult]
    part: Callable[[StageContext, Any], StageResult] | None = None
    row_wise: Callable[[Any], bool] = lambda _params: True
    split: Callable[[StageContext, Any], Sequence[Piece]] | None = None

    def pieces(self, context: StageContext, params: Any) -> Sequence[Piece]:
        """Return the pieces of the stage's data."""
        if self.split is not None:
            return self.split(context, params)
        if not self.row_wise(params):
            return []
        return [{INPUT: number} for number in range(len(context.input_ref().parts))]


def concatenated(_context: StageContext, _params: Any, parts: Sequence[StageResult]) -> StageResult:
    """Join parts: their rows one after the other, and the counts in their reports summed."""
    from techdeck_tasks.pipeline.data.artifacts import ArtifactRef  # noqa: PLC0415 - it imports Polars

    outputs = [part.output for part in parts if isinstance(part.output, ArtifactRef)]
    return StageResult(
        ArtifactRef.of_parts(outputs) if outputs else None, summed([part.report for part in parts])
    )


def summed(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return reports as one: counts are added, mappings likewise; of other values the last is kept."""
    total: dict[str, Any] = {}
    for report in reports:
        for name, value in report.items():
            before = total.get(name)
            if isinstance(value, Mapping):
                total[name] = summed([before or {}, value])
            elif isinstance(value, int) and not isinstance(value, bool) and before is not None:
                total[name] = before + value
            else:
                total[name] = value
    return total


@dataclass(frozen=True, slots=True)
class StageKind:
    """A registered kind of stage."""

    name: str
    params: type[BaseModel]
    body: Callable[[StageContext, Any], StageResult]
    summary: str
    partitioning: Partitioning | None = None


P = TypeVar("P", bound=BaseModel)
Body = Callable[[StageContext, P], StageResult]

_kinds: dict[str, StageKind] = {}
_loading = threading.RLock()
_loaded = False


def stage(
    name: str, *, params: type[P], summary: str, partitioning: Partitioning | None = None
) -> Callable[[Body[P]], Body[P]]:
    """Register the function below as the kind of stage `name`.

    Args:
        name: what a definition calls it.
        params: the model of its parameters; `StageParams` for none.
        summary: one line for listings.
        partitioning: how it is done in parts; None: always whole.

    Raises:
        ValidationError: another function has that name.
    """

    def register(body: Body[P]) -> Body[P]:
        taken = _kinds.get(name)
        # A reloaded module registers the same function again; that is no clash.
        if taken is not None and _origin(taken.body) != _origin(body):
            raise ValidationError(
                f"the stage kind {name!r} of {_origin(body)} is taken by {_origin(taken.body)}; "
                "choose another name",
                field="stage",
            )
        _kinds[name] = StageKind(name, params, body, summary, partitioning)
        return body

    return register


def find_stage(name: str) -> StageKind:
    """Return the kind called `name`.

    Raises:
        ValidationError: there is none; the text lists the known ones and suggests the nearest.
    """
    load_stages()
    try:
        return _kinds[name]
    except KeyError:
        near = difflib.get_close_matches(name, _kinds, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValidationError(
            f"unknown stage kind {name!r}: {hint}known are {', '.join(sorted(_kinds))}", field="stage"
        ) from None


def known_stages() -> tuple[StageKind, ...]:
    """Return every kind, by name."""
    load_stages()
    return tuple(_kinds[name] for name in sorted(_kinds))


def load_stages() -> None:
    """Import the built-in stages and the plugins, once a process.

    Raises:
        PipelineExecutionError: a plugin cannot be imported.
    """
    global _loaded  # noqa: PLW0603 - the registry is the process's, as the modules are
    with _loading:
        if _loaded:
            return
        for name in _BUILT_IN:
            importlib.import_module(f"techdeck_tasks.pipeline.stages.{name}")
        for point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                point.load()
            except ValidationError:
                raise
            except Exception as error:
                raise PipelineExecutionError(
                    f"the stage plugin {point.name!r} ({point.value}) cannot be imported; mend or remove it",
                    original_error=error,
                ) from error
        _loaded = True


def _origin(body: Callable[..., Any]) -> str:
    return f"{body.__module__}.{body.__qualname__}"

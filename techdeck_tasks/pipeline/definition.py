"""What a pipeline is: a name, a source, and stages with parameters and `needs`.

    name: diabetes
    source: {url: patients.csv}
    stages:
      - name: dataset_load
      - {name: clean, stage: validation, needs: [dataset_load], params: {columns: {age: {dtype: int, ge: 0}}}}
      - {name: export, needs: [clean], params: {destination: clean.parquet}}

Everything that can be known before a worker runs is checked here; every refusal is one line that names the
place, the limit and the remedy.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.cron import read_cron
from techdeck_tasks.pipeline.data.data_url import (
    FORMATS,
    DataUrl,
    data_format,
    display,
    is_remote,
    local_path,
)
from techdeck_tasks.pipeline.data.location import matches
from techdeck_tasks.pipeline.document import read_document
from techdeck_tasks.pipeline.registry import find_stage
from techdeck_tasks.pipeline.upload.record import SCHEME

MAX_STAGES = 200
_MAX_PROBLEMS_TOLD = 3

# A name is part of artifact paths and of a database key.
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Priority(StrEnum):
    """Which of the stages that wait for a worker are taken first."""

    NORMAL = "normal"
    LOW = "low"
    """Waits while a stage of normal priority does: for bulk and back-fill runs."""


def _checked_cron(expression: str) -> str:
    read_cron(expression)
    return expression


Cron = Annotated[str, Field(max_length=100), AfterValidator(_checked_cron)]
"""Five fields as in crontab, in UTC: minute, hour, day of month, month, day of week."""


class SourceSpec(BaseModel):
    """Where the data comes from: a path or fsspec URL, and its format (default: by the suffix).

    The path alone will do: ``source: patients.csv``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: DataUrl
    format: Literal["csv", "json", "jsonl", "parquet"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_path(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @property
    def effective_format(self) -> str:
        """The format, given or by the suffix.

        Raises:
            ValidationError: neither says it.
        """
        found = self.format or data_format(self.url)
        if found is None:
            raise ValidationError(
                f"source.format: the suffix of {display(self.url)} names no format; "
                f"set it to one of {', '.join(FORMATS)}",
                field="source.format",
            )
        return found


class StageSpec(BaseModel):
    """One stage: `stage` is its kind (default: its name), `needs` the stages it follows.

    `timeout_seconds` ends an attempt that takes longer, which is then retried; default: the worker's limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    stage: str | None = Field(None, min_length=1, max_length=64)
    params: dict[str, Any] = Field(default_factory=dict)
    needs: tuple[str, ...] = Field((), max_length=MAX_STAGES)
    timeout_seconds: int | None = Field(None, ge=1, le=7 * 86_400)

    @property
    def kind(self) -> str:
        """The registered kind of stage."""
        return self.stage or self.name


class PipelineDefinition(BaseModel):
    """A pipeline. Made by `parse_definition` or `load_definition`, which check what a type cannot say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    source: SourceSpec
    stages: tuple[StageSpec, ...] = Field(min_length=1, max_length=MAX_STAGES)
    priority: Priority = Priority.NORMAL
    schedule: Cron | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data that `parse_definition` reads back as an equal definition."""
        return self.model_dump(mode="json")

    def stage(self, name: str) -> StageSpec:
        """Return the stage called `name`.

        Raises:
            KeyError: there is none.
        """
        for spec in self.stages:
            if spec.name == name:
                return spec
        raise KeyError(name)


def load_definition(path: str | Path) -> PipelineDefinition:
    """Read a definition from a YAML or JSON file. Relative paths in it are relative to the file's folder.

    Raises:
        ValidationError: the file or what it says is not valid, or the local source file is missing.
    """
    file = Path(path)
    return parse_definition(read_document(file), folder=file.resolve().parent)


def parse_definition(mapping: Any, *, folder: Path | None = None) -> PipelineDefinition:
    """Check a definition and return it.

    Args:
        mapping: as read from YAML or JSON, or `PipelineDefinition.to_dict`.
        folder: makes relative paths absolute, and the local source file is looked for. Without it, relative
            paths stay: they mean the folder of the worker that reads them.

    Raises:
        ValidationError: one line with the first problems, each with its place.
    """
    definition, problems = _check(mapping, folder)
    if definition is None or problems:
        raise _in_one_line(problems)
    return definition


def find_problems(mapping: Any, *, folder: Path | None = None) -> list[ValidationError]:
    """Return every problem of a definition at once, each with its place; none where it is valid.

    Args:
        mapping: as for `parse_definition`.
        folder: as for `parse_definition`.
    """
    return _check(mapping, folder)[1]


def _check(mapping: Any, folder: Path | None) -> tuple[PipelineDefinition | None, list[ValidationError]]:
    if not isinstance(mapping, Mapping):
        kind = type(mapping).__name__
        text = f"a pipeline definition is a mapping with name, source and stages, not {kind}"
        return None, [ValidationError(text, field="definition")]
    context = {"folder": folder}
    try:
        shape = PipelineDefinition.model_validate(dict(mapping), context=context)
    except pydantic.ValidationError as error:
        return None, _problems_of(error)
    # Cycles are looked for where every need is a stage.
    problems = [*_name_problems(shape)] or _cycle_problems(shape)
    checked = []
    for index, spec in enumerate(shape.stages):
        try:
            checked.append(_check_params(spec, index, context))
        except ValidationError as problem:
            problems.append(problem)
        except pydantic.ValidationError as error:
            problems += _problems_of(error, f"stages[{index}].params")
    problems += _source_problems(shape, folder)
    if problems:
        return None, problems
    return shape.model_copy(update={"stages": tuple(checked)}), []


def _source_problems(definition: PipelineDefinition, folder: Path | None) -> list[ValidationError]:
    source = definition.source
    kinds = {spec.kind for spec in definition.stages}
    if source.url.startswith(f"{SCHEME}://") and "dataset_load" in kinds and "file_upload" not in kinds:
        text = "source.url: an upload is read by the stage file_upload; use it in place of dataset_load"
        return [ValidationError(text, field="source.url")]
    try:
        _ = source.effective_format
    except ValidationError as problem:
        return [problem]
    if folder is None or is_remote(source.url) or _is_there(source.url):
        return []
    return [
        ValidationError(
            f"source.url: there is no file {local_path(source.url)}; "
            "paths are relative to the definition file",
            field="source.url",
        )
    ]


def _is_there(url: str) -> bool:
    try:
        return all(local_path(found).is_file() for found in matches(url))
    except ValidationError:
        return False


def _name_problems(definition: PipelineDefinition) -> Iterator[ValidationError]:
    positions: dict[str, int] = {}
    for index, spec in enumerate(definition.stages):
        if spec.name in positions:
            yield ValidationError(
                f"stages[{index}].name: {spec.name!r} is also the name of stages[{positions[spec.name]}]; "
                "give each stage its own name and its kind in `stage`",
                field=f"stages[{index}].name",
            )
        positions[spec.name] = index
    for index, spec in enumerate(definition.stages):
        for need in spec.needs:
            if need not in positions:
                near = difflib.get_close_matches(need, positions, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"stages are {', '.join(positions)}"
                yield ValidationError(
                    f"stages[{index}].needs: {spec.name!r} needs {need!r}, which is no stage; {hint}",
                    field=f"stages[{index}].needs",
                )
        if len(set(spec.needs)) != len(spec.needs):
            yield ValidationError(
                f"stages[{index}].needs: {spec.name!r} names a stage twice; keep one",
                field=f"stages[{index}].needs",
            )


def _cycle_problems(definition: PipelineDefinition) -> list[ValidationError]:
    needs = {spec.name: spec.needs for spec in definition.stages}
    waiting = dict(needs)
    # Take away what needs nothing that is left; where nothing can be taken, what is left holds a cycle.
    while free := [name for name, needed in waiting.items() if waiting.keys().isdisjoint(needed)]:
        for name in free:
            del waiting[name]
    if not waiting:
        return []
    path = [next(iter(waiting))]
    while True:
        following = next(need for need in needs[path[-1]] if need in waiting)
        if following in path:
            cycle = [*path[path.index(following) :], following]
            break
        path.append(following)
    text = f"stages: {' needs '.join(cycle)}: a cycle; remove one of these `needs`"
    return [ValidationError(text, field="stages")]


def _check_params(spec: StageSpec, index: int, context: dict[str, Any]) -> StageSpec:
    """Return the stage with its parameters as their model reads them: paths made absolute, JSON-safe."""
    where = f"stages[{index}]"
    try:
        kind = find_stage(spec.kind)
    except ValidationError as error:
        raise ValidationError(f"{where}.stage: {error.message}", field=f"{where}.stage") from None
    params = kind.params.model_validate(spec.params, context=context)
    plain = params.model_dump(mode="json", exclude_unset=True, by_alias=True)
    try:
        json.dumps(plain, allow_nan=False)
    except ValueError:
        raise ValidationError(
            f"{where}.params: a number is infinite or not a number; JSON has no such value",
            field=f"{where}.params",
        ) from None
    return spec.model_copy(update={"params": plain})


def as_one_line(error: pydantic.ValidationError, prefix: str = "") -> ValidationError:
    """Return pydantic's problems as one line that names each place below `prefix`, never a value."""
    return _in_one_line(_problems_of(error, prefix))


def _in_one_line(problems: Sequence[ValidationError]) -> ValidationError:
    told = "; ".join(problem.message for problem in problems[:_MAX_PROBLEMS_TOLD])
    more = len(problems) - _MAX_PROBLEMS_TOLD
    first = problems[0].details
    return ValidationError(
        told + (f"; and {more} more" if more > 0 else ""),
        field=first.get("field"),
        validation_rule=first.get("validation_rule"),
    )


def _problems_of(error: pydantic.ValidationError, prefix: str = "") -> list[ValidationError]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # Of a list whose items are wrong pydantic also says that it is too short.
    lists = {problem["loc"][:-1] for problem in found} | {problem["loc"][:-2] for problem in found}
    return [
        ValidationError(
            f"{_place(prefix, problem['loc'])}: {_lower(problem['msg'])}",
            field=_place(prefix, problem["loc"]),
            validation_rule=problem["type"],
        )
        for problem in found
        if problem["type"] != "too_short" or problem["loc"] not in lists
    ]


def _place(prefix: str, loc: Sequence[int | str]) -> str:
    place = prefix
    for part in loc:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place or "definition"


def _lower(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]

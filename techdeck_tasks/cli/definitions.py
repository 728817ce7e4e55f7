"""``techdeck validate`` and ``techdeck stages``: what a definition may say, without any server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from techdeck_tasks.cli.console import err, out, print_json
from techdeck_tasks.cli.exits import Exit
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import NOTHING
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.definition import find_problems
from techdeck_tasks.pipeline.document import read_document
from techdeck_tasks.pipeline.registry import StageKind, find_stage, known_stages
from techdeck_tasks.runtime import import_own_modules
from techdeck_tasks.settings import load_settings


def validate(
    file: Annotated[Path, typer.Argument(help="The pipeline's definition, YAML or JSON.")],
    json_output: JsonOption = False,
) -> None:
    """Check a definition and tell every problem at once. Exit code 0: valid, 2: not."""
    import_own_modules(load_settings())
    problems = [problem.message for problem in _problems(file)]
    if json_output:
        print_json({"valid": not problems, "problems": problems})
    elif problems:
        for problem in problems:
            err.print(f"  {problem}", style="red", markup=False, soft_wrap=True)
    else:
        out.print(f"{file} is valid")
    if problems:
        raise typer.Exit(Exit.BAD_INPUT)


def _problems(file: Path) -> list[ValidationError]:
    try:
        document = read_document(file)
    except ValidationError as error:
        return [error]
    return find_problems(document, folder=file.resolve().parent)


def stages(
    kind: Annotated[str | None, typer.Argument(help="Only this kind of stage.")] = None,
    json_output: JsonOption = False,
) -> None:
    """List the kinds of stages with their parameters."""
    import_own_modules(load_settings())
    kinds = known_stages() if kind is None else (find_stage(kind),)
    if json_output:
        print_json(
            [
                {"stage": one.name, "summary": one.summary, "params": one.params.model_json_schema()}
                for one in kinds
            ]
        )
        return
    for one in kinds:
        out.print(f"[bold]{one.name}[/]  {one.summary}")
        if rows := _parameters(one):
            table = Table(box=None, padding=(0, 2), show_header=True, header_style="dim")
            for heading in ("", "parameter", "type", "default"):
                table.add_column(heading, overflow="fold")
            for row in rows:
                table.add_row("", *row)
            out.print(table)


def _parameters(kind: StageKind) -> list[tuple[str, str, str]]:
    schema = kind.params.model_json_schema()
    required = set(schema.get("required", ()))
    return [
        (name, _type_of(facts), "required" if name in required else _default_of(facts))
        for name, facts in schema.get("properties", {}).items()
    ]


def _type_of(facts: dict[str, Any]) -> str:
    if "anyOf" in facts:
        return " or ".join(_type_of(one) for one in facts["anyOf"] if one.get("type") != "null")
    if "enum" in facts:
        return " or ".join(str(value) for value in facts["enum"])
    if "$ref" in facts:
        return str(facts["$ref"].rsplit("/", 1)[-1])
    if facts.get("type") == "array":
        return f"list of {_type_of(facts.get('items', {}))}"
    return str(facts.get("type", facts.get("const", "any")))


def _default_of(facts: dict[str, Any]) -> str:
    default = facts.get("default")
    return NOTHING if default is None else str(default)
